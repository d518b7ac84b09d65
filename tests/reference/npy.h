/* Reads numpy's .npy files (format 1.0, C order) of golden values. */
#ifndef REF_NPY_H
#define REF_NPY_H

#include <stdbool.h>
#include <stddef.h>

struct ref_npy { size_t rows, cols; double *x; };     /* x [rows][cols]; a vector has one column */

/* float64, float32 or int32, up to two dimensions. false: not there or of another kind. Free with ref_npy_free. */
bool ref_npy_load(const char *path, struct ref_npy *a);
void ref_npy_free(struct ref_npy *a);

#endif
