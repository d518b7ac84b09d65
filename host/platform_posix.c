/* Linux, Android, macOS and others. */
#if defined(__linux__)
#  define _GNU_SOURCE          /* sched_getaffinity */
#  include <sched.h>
#endif
#define _FILE_OFFSET_BITS 64   /* files beyond 4 GiB on 32-bit hosts are refused by size, not misread */
#include "platform.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

FILE *vkm_file_open(const char *path, const char *mode) { return fopen(path, mode); }
FILE *vkm_file_create(const char *path) { return fopen(path, "wbx"); }
int vkm_file_move(const char *from, const char *to) { return rename(from, to); }
int vkm_file_remove(const char *path) { return remove(path); }
void vkm_directory_make(const char *path) { mkdir(path, 0777); }

static vkm_result map(int fd, const char *shown, const uint8_t **bytes, uint64_t *n, vkm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return vkm_fail(err, VKM_ERR_IO, "%s: %s", shown, strerror(errno));
    if (!S_ISREG(st.st_mode)) return vkm_fail(err, VKM_ERR_IO, "%s: not a regular file", shown);
    if (st.st_size == 0) return vkm_fail(err, VKM_ERR_FORMAT, "%s: the file is empty", shown);
    if ((uint64_t)st.st_size > SIZE_MAX / 2)
        return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s: %llu bytes do not fit in the address space", shown, (unsigned long long)st.st_size);
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) return vkm_fail(err, VKM_ERR_IO, "%s: cannot be mapped: %s", shown, strerror(errno));
    *bytes = at;
    *n = (uint64_t)st.st_size;
    return VKM_OK;
}

vkm_result vkm_file_map(const char *path, const char *shown, const uint8_t **bytes, uint64_t *n, vkm_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);   /* not to hang on a named pipe */
    if (fd < 0) return vkm_fail(err, VKM_ERR_IO, "%s: %s", shown, strerror(errno));
    vkm_result r = map(fd, shown, bytes, n, err);
    close(fd);
    return r;
}

void vkm_file_unmap(const uint8_t *bytes, uint64_t n) { munmap((void *)(uintptr_t)bytes, (size_t)n); }

/* From the page that has the first byte to the page behind the last, or before it: then a page that goes on is not touched. */
static bool pages(const void *at, uint64_t bytes, bool last, char **first, size_t *n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)at / page * page, end = ((uintptr_t)at + bytes + (last ? page - 1 : 0)) / page * page;
    *first = (char *)begin;
    *n = end - begin;
    return bytes && *n > 0;
}

void vkm_pages_prefetch(const void *at, uint64_t bytes)
{
    char *first;
    size_t n;
    if (pages(at, bytes, true, &first, &n)) madvise(first, n, MADV_WILLNEED);
}

bool vkm_pages_fetch(const void *at, uint64_t bytes)
{
#ifdef MADV_POPULATE_READ
    char *first;
    size_t n;
    /* other errors: a kernel before 5.14 */
    return !pages(at, bytes, true, &first, &n) || madvise(first, n, MADV_POPULATE_READ) == 0 || (errno != EFAULT && errno != EIO && errno != EHWPOISON);
#else
    (void)at; (void)bytes;
    return true;
#endif
}

/* Pages come back from the file if touched again, as the first will be where it begins with other bytes. */
void vkm_pages_release(const void *at, uint64_t bytes)
{
    char *first;
    size_t n;
    if (pages(at, bytes, false, &first, &n)) madvise(first, n, MADV_DONTNEED);
}

uint64_t vkm_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t vkm_processors(void)
{
    long n = 0;
#if defined(__linux__)
    cpu_set_t set;                       /* a container or taskset may allow less than the machine has */
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
    if (n < 1) n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (uint32_t)n;
}

vkm_void_fn vkm_vulkan_loader(void)
{
#if defined(__APPLE__)
    static const char *const names[] = {"libvulkan.dylib", "libvulkan.1.dylib", "libMoltenVK.dylib"};
#else
    static const char *const names[] = {"libvulkan.so.1", "libvulkan.so"};
#endif
    for (size_t i = 0; i < VKM_COUNT(names); i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
        if (symbol) return (vkm_void_fn)symbol;
    }
    return NULL;
}
