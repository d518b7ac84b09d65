/* Results, errors and text. */
#include "base.h"
#include <stdio.h>
#include <string.h>

const char *vkm_result_name(vkm_result r)
{
    switch (r) {
#define VKM_X(name, value, text) case VKM_##name: return "VKM_" #name;
    VKM_RESULTS(VKM_X)
#undef VKM_X
    default: return "unknown";
    }
}

const char *vkm_result_text(vkm_result r)
{
    switch (r) {
#define VKM_X(name, value, text) case VKM_##name: return text;
    VKM_RESULTS(VKM_X)
#undef VKM_X
    default: return "unknown result";
    }
}

#define VKM_STRING(x) #x
#define VKM_VERSION_TEXT(a, b, c) VKM_STRING(a) "." VKM_STRING(b) "." VKM_STRING(c)

const char *vkm_version(void)
{
    return VKM_VERSION_TEXT(VKM_VERSION_MAJOR, VKM_VERSION_MINOR, VKM_VERSION_PATCH);
}

vkm_result vkm_fail(vkm_error *err, vkm_result r, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        vkm_error e = {.code = r};   /* formatted aside: an argument may be err->message itself */
        vsnprintf(e.message, sizeof e.message, fmt, args);
        va_end(args);
        *err = e;
    }
    return r;
}

void vkm_textf(vkm_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool room = t->used < t->size;
    int n = vsnprintf(room ? t->at + t->used : NULL, room ? t->size - t->used : 0, fmt, args);
    va_end(args);
    if (n > 0) t->used += (size_t)n;
}
