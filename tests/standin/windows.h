/* What suites use of POSIX and MinGW does not have; included before them on Windows. */
#ifndef VKM_STANDIN_WINDOWS_H
#define VKM_STANDIN_WINDOWS_H

#define _FILE_OFFSET_BITS 64
#include <direct.h>
#include <io.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline char *mkdtemp(char *name) { return _mktemp(name) && _mkdir(name) == 0 ? name : NULL; }
static inline int standin_mkdir(const char *path, int mode) { (void)mode; return _mkdir(path); }
#define mkdir standin_mkdir
#define truncate truncate64
/* No named pipes in folders there: a folder is no regular file either. */
static inline int mkfifo(const char *path, int mode) { (void)mode; return _mkdir(path); }

#endif
