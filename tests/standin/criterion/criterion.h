/* What our suites use of Criterion, for systems that have no package of it (Windows, cross builds). All tests of a suite run in one process, one after the other: a crash ends the
 * suite, and what a failed test had open stays so.   SUITE [--filter 'suite/name'], where * stands for anything.   Ends with Criterion's line "Synthesis: ...". */
#ifndef VKM_STANDIN_CRITERION_H
#define VKM_STANDIN_CRITERION_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct standin_test { const char *suite, *name; void (*run)(void); struct standin_test *next; };
static struct standin_test *standin_first, **standin_last = &standin_first;
static jmp_buf standin_out;
static bool standin_failed, standin_skipped;

static inline void standin_say(const char *what, const char *file, int line, const char *expression, const char *fmt, va_list args)
{
    printf("[%s] %s:%d: %s", what, file, line, expression);
    if (*fmt) printf(": "), vprintf(fmt, args);
    printf("\n");
}
static inline void standin_fail(bool ends, const char *file, int line, const char *expression, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    standin_say("FAIL", file, line, expression, fmt, args);
    va_end(args);
    standin_failed = true;
    if (ends) longjmp(standin_out, 1);
}
static inline void standin_skip(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    standin_say("SKIP", file, line, "", fmt, args);
    va_end(args);
    standin_skipped = true;
    longjmp(standin_out, 1);
}

static inline bool standin_matches(const char *pattern, const char *name)
{
    if (*pattern == '*') return standin_matches(pattern + 1, name) || (*name && standin_matches(pattern, name + 1));
    return *pattern == *name && (!*pattern || standin_matches(pattern + 1, name + 1));
}

int main(int argc, char **argv)
{
    const char *filter = "*";
    unsigned tested = 0, passing = 0, skipped = 0;
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--filter") == 0) filter = argv[i + 1];
    setvbuf(stdout, NULL, _IONBF, 0);
    for (struct standin_test *volatile t = standin_first; t; t = t->next) {
        char full[256];
        snprintf(full, sizeof full, "%s/%s", t->suite, t->name);
        if (!standin_matches(filter, full)) continue;
        standin_failed = standin_skipped = false;
        printf("[RUN ] %s\n", full);
        if (setjmp(standin_out) == 0) t->run();
        if (standin_skipped && !standin_failed) { skipped++; continue; }
        tested++;
        if (standin_failed) printf("[FAIL] %s/%s\n", t->suite, t->name);
        else passing++;
    }
    printf("[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: 0 | Skipped: %u\n", tested, passing, tested - passing, skipped);
    return tested == passing ? 0 : 1;
}

#define Test(suite_, name_, ...)                                                                                        \
    static void standin_##suite_##_##name_(void);                                                                       \
    __attribute__((constructor)) static void standin_add_##suite_##_##name_(void)                                       \
    {                                                                                                                   \
        static struct standin_test test = {#suite_, #name_, standin_##suite_##_##name_, NULL};                          \
        *standin_last = &test;                                                                                          \
        standin_last = &test.next;                                                                                      \
    }                                                                                                                   \
    static void standin_##suite_##_##name_(void)

#define STANDIN(ends, holds, text, ...) ((holds) ? (void)0 : standin_fail(ends, __FILE__, __LINE__, text, "" __VA_ARGS__))
#define cr_assert(a, ...) STANDIN(true, (a), #a, __VA_ARGS__)
#define cr_expect(a, ...) STANDIN(false, (a), #a, __VA_ARGS__)
#define cr_assert_not(a, ...) STANDIN(true, !(a), "!(" #a ")", __VA_ARGS__)
#define cr_expect_not(a, ...) STANDIN(false, !(a), "!(" #a ")", __VA_ARGS__)
#define cr_assert_fail(...) STANDIN(true, false, "failed", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) STANDIN(true, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) STANDIN(false, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) STANDIN(true, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) STANDIN(false, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) STANDIN(true, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) STANDIN(false, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) STANDIN(true, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) STANDIN(false, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) STANDIN(true, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) STANDIN(false, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) STANDIN(true, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) STANDIN(false, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...) STANDIN(true, (a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_expect_null(a, ...) STANDIN(false, (a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...) STANDIN(true, (a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_expect_not_null(a, ...) STANDIN(false, (a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) STANDIN(true, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) STANDIN(false, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, bytes, ...) STANDIN(true, memcmp(a, b, bytes) == 0, #a " holds " #b, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, bytes, ...) STANDIN(false, memcmp(a, b, bytes) == 0, #a " holds " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, by, ...) STANDIN(true, fabs((double)(a) - (double)(b)) <= (by), #a " is near " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, by, ...) STANDIN(false, fabs((double)(a) - (double)(b)) <= (by), #a " is near " #b, __VA_ARGS__)
#define cr_skip_test(...) standin_skip(__FILE__, __LINE__, __VA_ARGS__)
#define cr_skip(...) standin_skip(__FILE__, __LINE__, __VA_ARGS__)

#endif
