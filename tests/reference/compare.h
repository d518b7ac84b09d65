/* How far a result is from its reference. */
#ifndef REF_COMPARE_H
#define REF_COMPARE_H

#include <stddef.h>

/* Normalised mean squared error: sum (got - expected)^2 / sum expected^2. 0 when both are all zero; infinity where `got` is not finite. */
double ref_nmse(const double *expected, const double *got, size_t n);
double ref_nmse_f32(const double *expected, const float *got, size_t n);

#endif
