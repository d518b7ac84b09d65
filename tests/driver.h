/* What suites need to run on a device: one with validation on, whose messages fail the test. VKMOE_TEST_DEVICE chooses it (index or part of its name). */
#ifndef VKM_TESTS_DRIVER_H
#define VKM_TESTS_DRIVER_H

#include "host/program.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Calls that must work, telling why they did not. `err` is in scope. */
#define OK(call) do { vkm_result ok_ = (call); cr_assert_eq(ok_, VKM_OK, "%s: %s: %s", #call, vkm_result_name(ok_), err.message); } while (0)
#define FAILS(call, code) do { err.message[0] = 0; vkm_result r_ = (call); cr_assert_eq(r_, code, "%s gave %s: %s", #call, vkm_result_name(r_), err.message); \
                               cr_assert_neq(err.message[0], 0, "%s: no message", #call); } while (0)

struct driver_log { uint32_t n_errors; char text[16384]; vkm_text all; };

static void driver_on_log(void *user, vkm_log_level level, const char *text)
{
    struct driver_log *log = user;
    vkm_textf(&log->all, "%s\n", text);
    if (level != VKM_LOG_ERROR) return;
    log->n_errors++;
    fprintf(stderr, "%s\n", text);
}

/* A device clamped by `caps`. *log lives until driver_close and holds what the device said. */
static inline vkm_device *driver_open_cached(const char *caps, const char *cache_path, struct driver_log *log)
{
    vkm_error err = {0};
    vkm_device *device = NULL;
    *log = (struct driver_log){0};
    log->all = (vkm_text){log->text, sizeof log->text, 0};
    vkm_device_params params = {.struct_size = sizeof params, .select = getenv("VKMOE_TEST_DEVICE"), .caps = caps, .cache_path = cache_path,
                                .validation = true, .log = driver_on_log, .log_user = log};
    OK(vkm_device_create(&params, &device, &err));
    return device;
}

static inline vkm_device *driver_open(const char *caps, struct driver_log *log) { return driver_open_cached(caps, NULL, log); }

/* What the device would be as a discrete GPU whose compilers have many registers, so that it gets the kernels of NVIDIA's and AMD's; matrices as it has them, where they are in use. */
static inline struct vkm_caps gpu_caps(const vkm_device *device, uint32_t subgroup_size)
{
    struct vkm_caps caps = *vkm_device_caps(device);
    caps.type = VKM_TYPE_DISCRETE;
    caps.subgroup_size = subgroup_size;
    if (!(caps.tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT))) caps.coopmat = true, caps.matrix.m = 16;
    return caps;
}

/* The kernels of matmul_cpu.glsl and attention_cpu.comp. Debian 12's lavapipe, which has that limit of iterations, takes minutes to compile some of them. */
static inline bool runs_scalar_loads(const struct vkm_caps *caps) { return caps->scalar_loads && !caps->loop_iterations; }
#define NO_SCALAR_LOADS "the device is no CPU driver with device addresses, or one that compiles these kernels for minutes"

/* The validation layer must have been silent, also about what was left undestroyed. */
static inline void driver_close(vkm_device *device, struct driver_log *log)
{
    cr_expect_eq(vkm_device_validation_count(device), 0);
    vkm_device_destroy(device);
    cr_expect_eq(log->n_errors, 0, "%s", log->text);
}

#endif
