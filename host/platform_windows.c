/* Windows 8 and later. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0602    /* PrefetchVirtualMemory */
#include "platform.h"
#include <windows.h>
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <share.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What Windows calls a path, owned by the caller; NULL with errno set. */
static wchar_t *wide(const char *path)
{
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *w = n > 0 ? malloc((size_t)n * sizeof *w) : NULL;
    if (w) MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, w, n);
    else errno = n > 0 ? ENOMEM : EILSEQ;
    return w;
}

/* The last error as an errno, whose text needs no buffer. */
static int last_error(void)
{
    switch (GetLastError()) {
    case ERROR_FILE_NOT_FOUND: case ERROR_PATH_NOT_FOUND: case ERROR_INVALID_NAME: case ERROR_BAD_NETPATH: return ENOENT;
    case ERROR_ACCESS_DENIED: case ERROR_SHARING_VIOLATION: case ERROR_LOCK_VIOLATION: case ERROR_USER_MAPPED_FILE: return EACCES;
    case ERROR_NOT_ENOUGH_MEMORY: case ERROR_OUTOFMEMORY: case ERROR_COMMITMENT_LIMIT: return ENOMEM;
    case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL: return ENOSPC;
    default: return EIO;
    }
}

FILE *vkm_file_open(const char *path, const char *mode)
{
    wchar_t *w = wide(path), *m = w ? wide(mode) : NULL;
    FILE *f = m ? _wfopen(w, m) : NULL;
    free(w);
    free(m);
    return f;
}

FILE *vkm_file_create(const char *path)
{
    wchar_t *w = wide(path);
    int fd = w ? _wopen(w, _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE) : -1;
    FILE *f = fd < 0 ? NULL : _fdopen(fd, "wb");
    if (fd >= 0 && !f) _close(fd);
    free(w);
    return f;
}

int vkm_file_move(const char *from, const char *to)
{
    wchar_t *a = wide(from), *b = a ? wide(to) : NULL;
    bool moved = b && MoveFileExW(a, b, MOVEFILE_REPLACE_EXISTING);
    if (b && !moved) errno = last_error();
    free(a);
    free(b);
    return moved ? 0 : -1;
}

int vkm_file_remove(const char *path)
{
    wchar_t *w = wide(path);
    int r = w ? _wremove(w) : -1;
    free(w);
    return r;
}

void vkm_directory_make(const char *path)
{
    wchar_t *w = wide(path);
    if (w) CreateDirectoryW(w, NULL);
    free(w);
}

static vkm_result map(HANDLE file, const char *shown, const uint8_t **bytes, uint64_t *n, vkm_error *err)
{
    BY_HANDLE_FILE_INFORMATION info;
    LARGE_INTEGER size;
    if (GetFileType(file) != FILE_TYPE_DISK || (GetFileInformationByHandle(file, &info) && info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY))
        return vkm_fail(err, VKM_ERR_IO, "%s: not a regular file", shown);
    if (!GetFileSizeEx(file, &size)) return vkm_fail(err, VKM_ERR_IO, "%s: %s", shown, strerror(last_error()));
    if (size.QuadPart == 0) return vkm_fail(err, VKM_ERR_FORMAT, "%s: the file is empty", shown);
    if ((uint64_t)size.QuadPart > SIZE_MAX / 2)
        return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s: %llu bytes do not fit in the address space", shown, (unsigned long long)size.QuadPart);
    HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    const void *at = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    vkm_result r = at ? VKM_OK : vkm_fail(err, VKM_ERR_IO, "%s: cannot be mapped: %s", shown, strerror(last_error()));
    if (mapping) CloseHandle(mapping);   /* the view keeps it */
    if (at) *bytes = at, *n = (uint64_t)size.QuadPart;
    return r;
}

vkm_result vkm_file_map(const char *path, const char *shown, const uint8_t **bytes, uint64_t *n, vkm_error *err)
{
    wchar_t *w = wide(path);
    if (!w) return vkm_fail(err, VKM_ERR_IO, "%s: %s", shown, strerror(errno));
    /* with the flag a directory can be opened too, and be told from a file that may not be read */
    HANDLE file = CreateFileW(w, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    vkm_result r = file == INVALID_HANDLE_VALUE ? vkm_fail(err, VKM_ERR_IO, "%s: %s", shown, strerror(last_error())) : map(file, shown, bytes, n, err);
    if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
    free(w);
    return r;
}

void vkm_file_unmap(const uint8_t *bytes, uint64_t n)
{
    (void)n;
    UnmapViewOfFile(bytes);
}

void vkm_pages_prefetch(const void *at, uint64_t bytes)
{
    WIN32_MEMORY_RANGE_ENTRY range = {(void *)(uintptr_t)at, (SIZE_T)bytes};
    if (bytes) PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

/* A mapped file keeps its length, and nothing else tells of a disk that fails. */
bool vkm_pages_fetch(const void *at, uint64_t bytes)
{
    vkm_pages_prefetch(at, bytes);
    return true;
}

/* Of pages that are not locked VirtualUnlock says so, and takes them out of the working set; that is its documented use for this. */
void vkm_pages_release(const void *at, uint64_t bytes)
{
    if (bytes) VirtualUnlock((void *)(uintptr_t)at, (SIZE_T)bytes);
}

uint64_t vkm_now_ns(void)
{
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    uint64_t t = (uint64_t)ticks.QuadPart, f = (uint64_t)frequency.QuadPart;
    return t / f * 1000000000u + t % f * 1000000000u / f;
}

uint32_t vkm_processors(void)
{
    DWORD_PTR mine = 0, all = 0;
    uint32_t n = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))   /* of the first 64 */
        for (; mine; mine &= mine - 1) n++;
    return n ? n : 1;
}

vkm_void_fn vkm_vulkan_loader(void)
{
    /* the program's own folder or the system's, not the one that it was started in */
    HMODULE library = LoadLibraryExW(L"vulkan-1.dll", NULL, LOAD_LIBRARY_SEARCH_DEFAULT_DIRS);
    return library ? (vkm_void_fn)(void *)GetProcAddress(library, "vkGetInstanceProcAddr") : NULL;
}
