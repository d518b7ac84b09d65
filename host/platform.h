/* What operating systems do differently: platform_posix.c and platform_windows.c. Paths are UTF-8 on all of them. */
#ifndef VKM_HOST_PLATFORM_H
#define VKM_HOST_PLATFORM_H

#include "base.h"
#include <stdio.h>

#if defined(_WIN32)
#  define VKM_PATH_SEPARATORS "/\\"
#else
#  define VKM_PATH_SEPARATORS "/"
#endif
/* fopen. NULL with errno set. */
FILE *vkm_file_open(const char *path, const char *mode);
/* A new file for writing bytes: NULL with errno EEXIST where there is one of that name. */
FILE *vkm_file_create(const char *path);
/* `to` becomes what `from` was, in one step where there was a file before. 0, or -1 with errno set. */
int vkm_file_move(const char *from, const char *to);
int vkm_file_remove(const char *path);
/* Does nothing where it cannot: that shows when a file in it is opened. */
void vkm_directory_make(const char *path);

/* A file's bytes as memory, read-only: nothing is read until it is touched, and pages can be dropped at any time. `shown` names the file in messages. Not a regular file is
 * VKM_ERR_IO, an empty one VKM_ERR_FORMAT. A file that is truncated by someone else while it is mapped raises SIGBUS on access (on Windows it cannot be truncated); no reader of
 * mappings can prevent that, but vkm_pages_fetch mostly sees it first. */
vkm_result vkm_file_map(const char *path, const char *shown, const uint8_t **bytes, uint64_t *n, vkm_error *err);
void vkm_file_unmap(const uint8_t *bytes, uint64_t n);
/* Of bytes of a mapping: read them in the background; read them now, false if the file does not have them any more; they will not be needed soon. */
void vkm_pages_prefetch(const void *at, uint64_t bytes);
bool vkm_pages_fetch(const void *at, uint64_t bytes);
void vkm_pages_release(const void *at, uint64_t bytes);

/* Steady clock. */
uint64_t vkm_now_ns(void);
/* Processors that this process may use, at least 1. */
uint32_t vkm_processors(void);
/* vkGetInstanceProcAddr of the Vulkan loader, which is opened and never closed: drivers leave threads and thread-local destructors behind that must not lose their code.
 * NULL where there is none. */
vkm_void_fn vkm_vulkan_loader(void);
#if defined(_WIN32)
#  define VKM_VULKAN_LOADER "vulkan-1.dll"
#elif defined(__APPLE__)
#  define VKM_VULKAN_LOADER "libvulkan.dylib"
#else
#  define VKM_VULKAN_LOADER "libvulkan.so.1"
#endif

#endif
