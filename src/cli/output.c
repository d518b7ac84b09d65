/* Output files that are there whole or not at all. */
#include "cli.h"
#include "system.h"
#include <errno.h>
#include <string.h>

int output_open(struct output *o, const char *path)
{
    enum system_file kind = system_file_kind(path);
    o->f = NULL;
    o->aside[0] = 0;
    if (kind == SYSTEM_FOLDER) return fail("%s: %s", path, strerror(EISDIR));
    if (kind == SYSTEM_OTHER) {
        o->f = vkm_file_open(path, "wb");
        return o->f ? STATUS_OK : fail("%s: %s", path, strerror(errno));
    }
    if (kind == SYSTEM_NONE || !system_real_path(path, o->target, sizeof o->target)) {   /* what a symbolic link names is replaced, not the link */
        if (strlen(path) >= sizeof o->target) return fail("%s: %s", path, strerror(ENAMETOOLONG));
        strcpy(o->target, path);
    }
    for (int i = 0; i < 16 && !o->f; i++) {
        snprintf(o->aside, sizeof o->aside, "%s.%08x.part", o->target, (unsigned)(system_seed() * 0x9e3779b97f4a7c15u >> 32));
        o->f = vkm_file_create(o->aside);
        if (!o->f && errno != EEXIST) break;
    }
    return o->f ? STATUS_OK : fail("%s: %s", o->aside, strerror(errno));
}

int output_close(struct output *o, const char *path, int status)
{
    if (!o->f) return status;
    errno = 0;
    bool bad = ferror(o->f) || fflush(o->f);
    bad = fclose(o->f) || bad;
    if (status == STATUS_OK && !bad && o->aside[0] && vkm_file_move(o->aside, o->target)) bad = true;
    if (status == STATUS_OK && bad) status = fail("%s: cannot be written%s%s", path, errno ? ": " : "", errno ? strerror(errno) : "");
    if (status != STATUS_OK && o->aside[0]) vkm_file_remove(o->aside);
    return status;
}
