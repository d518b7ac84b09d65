#include "reference/compare.h"

#include <math.h>

static double ratio(double error, double scale) { return error == 0 ? 0 : isfinite(error) ? error / scale : INFINITY; }

double ref_nmse(const double *expected, const double *got, size_t n)
{
    double error = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        error += (got[i] - expected[i]) * (got[i] - expected[i]);
        scale += expected[i] * expected[i];
    }
    return ratio(error, scale);
}

double ref_nmse_f32(const double *expected, const float *got, size_t n)
{
    double error = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        error += (got[i] - expected[i]) * (got[i] - expected[i]);
        scale += expected[i] * expected[i];
    }
    return ratio(error, scale);
}
