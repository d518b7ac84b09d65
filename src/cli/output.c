/* Output files that are there whole or not at all. */
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof ((struct output *)0)->target >= PATH_MAX, "realpath writes so much");

int output_open(struct output *o, const char *path)
{
    struct stat info;
    bool exists = stat(path, &info) == 0;
    o->aside[0] = 0;
    if (exists && S_ISDIR(info.st_mode)) return fail("%s: %s", path, strerror(EISDIR));
    if (exists && !S_ISREG(info.st_mode)) {
        o->f = fopen(path, "wb");
        return o->f ? STATUS_OK : fail("%s: %s", path, strerror(errno));
    }
    if (!exists || !realpath(path, o->target)) {           /* what a symbolic link names is replaced, not the link */
        if (strlen(path) >= sizeof o->target) return fail("%s: %s", path, strerror(ENAMETOOLONG));
        strcpy(o->target, path);
    }
    snprintf(o->aside, sizeof o->aside, "%s.%ld.part", o->target, (long)getpid());
    int fd = open(o->aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    o->f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (o->f) return STATUS_OK;
    int status = fail("%s: %s", o->aside, strerror(errno));
    if (fd >= 0) { close(fd); unlink(o->aside); }
    return status;
}

int output_close(struct output *o, const char *path, int status)
{
    if (!o->f) return status;
    errno = 0;
    bool bad = ferror(o->f) || fflush(o->f);
    bad = fclose(o->f) || bad;
    if (status == STATUS_OK && !bad && o->aside[0] && rename(o->aside, o->target)) bad = true;
    if (status == STATUS_OK && bad) status = fail("%s: cannot be written%s%s", path, errno ? ": " : "", errno ? strerror(errno) : "");
    if (status != STATUS_OK && o->aside[0]) unlink(o->aside);
    return status;
}
