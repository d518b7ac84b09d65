/* How much is tested. VKMOE_TEST_FULL: everything. VKMOE_TEST_BRIEF: not what tests again what was tested on another driver. Neither: what fits tests/run.sh, whose time drivers' compilers take. */
#ifndef VKM_TEST_EFFORT_H
#define VKM_TEST_EFFORT_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>

static inline bool full(void) { return getenv("VKMOE_TEST_FULL") != NULL; }
static inline bool brief(void) { return getenv("VKMOE_TEST_BRIEF") && !full(); }
#define FIRST_DRIVER_ONLY() do { if (brief()) cr_skip_test("on the first driver only"); } while (0)
#define FULL_ONLY() do { if (!full()) cr_skip_test("with VKMOE_TEST_FULL only: its kernels compile for long"); } while (0)

#endif
