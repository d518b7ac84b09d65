/* Windows 8 and later. The program's manifest makes narrow names UTF-8 from Windows 10 on, in arguments and environment too. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0602
#include "system.h"
#include <windows.h>
#include <psapi.h>
#include <fcntl.h>
#include <io.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void system_start(void)
{
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
    SetConsoleOutputCP(CP_UTF8);
}

void system_on_interrupt(void (*handler)(int number))
{
    signal(SIGINT, handler);               /* set back to the default when it is called */
    signal(SIGTERM, handler);
}

bool system_is_terminal(FILE *f) { DWORD mode; return GetConsoleMode((HANDLE)_get_osfhandle(_fileno(f)), &mode); }
bool system_is_pipe(FILE *f) { return GetFileType((HANDLE)_get_osfhandle(_fileno(f))) == FILE_TYPE_PIPE; }

/* ---------------------------------------------------------------- files and folders */

enum system_file system_file_kind(const char *path)
{
    struct _stat64 info;
    if (_stat64(path, &info) != 0) return SYSTEM_NONE;
    return (info.st_mode & _S_IFMT) == _S_IFDIR ? SYSTEM_FOLDER : (info.st_mode & _S_IFMT) == _S_IFREG ? SYSTEM_REGULAR : SYSTEM_OTHER;
}

bool system_real_path(const char *path, char *real, size_t size) { return _fullpath(real, path, size) != NULL; }

bool system_program_folder(char *path, size_t size)
{
    DWORD n = GetModuleFileNameA(NULL, path, (DWORD)size);
    path[n < size ? n : 0] = 0;
    char *slash = strrchr(path, '\\');
    if (slash) *slash = 0;
    return slash != NULL;
}

bool system_cache_folder(char *path, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *local = getenv("LOCALAPPDATA");
    int n = cache && *cache ? snprintf(path, size, "%s", cache) : local && *local ? snprintf(path, size, "%s", local) : -1;
    if (n < 0 || (size_t)n >= size) return false;
    vkm_directory_make(path);
    return true;
}

bool system_temporary_folder(const char *prefix, char *path, size_t size)
{
    char tmp[MAX_PATH + 1];
    DWORD n = GetTempPathA(sizeof tmp, tmp);
    if (n == 0 || n >= sizeof tmp) tmp[0] = 0;
    for (int i = 0; i < 16; i++) {
        int m = snprintf(path, size, "%s%s-%08x", tmp, prefix, (unsigned)(system_seed() * 0x9e3779b97f4a7c15u >> 32) + (unsigned)i);
        if (m > 0 && (size_t)m < size && CreateDirectoryA(path, NULL)) return true;
    }
    snprintf(path, size, "%s", tmp);
    return false;
}

void system_remove_folder(const char *path)
{
    char inside[1024];
    WIN32_FIND_DATAA found;
    snprintf(inside, sizeof inside, "%s\\*", path);
    HANDLE list = FindFirstFileA(inside, &found);
    for (bool more = list != INVALID_HANDLE_VALUE; more; more = FindNextFileA(list, &found)) {
        if (strcmp(found.cFileName, ".") == 0 || strcmp(found.cFileName, "..") == 0) continue;
        int n = snprintf(inside, sizeof inside, "%s\\%s", path, found.cFileName);
        if (n < 0 || (size_t)n >= sizeof inside) continue;
        if (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY && !(found.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT)) system_remove_folder(inside);
        else if (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) RemoveDirectoryA(inside);
        else DeleteFileA(inside);
    }
    if (list != INVALID_HANDLE_VALUE) FindClose(list);
    RemoveDirectoryA(path);
}

void system_set_variable(const char *name, const char *value) { _putenv_s(name, value ? value : ""); }

/* ---------------------------------------------------------------- the process */

uint64_t system_seed(void)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    return ((uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime) ^ vkm_now_ns() << 20 ^ (uint64_t)GetCurrentProcessId() << 40;
}

double system_cpu_seconds(void)
{
    FILETIME created, ended, kernel, user;
    if (!GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user)) return 0;
    uint64_t ticks = ((uint64_t)kernel.dwHighDateTime << 32 | kernel.dwLowDateTime) + ((uint64_t)user.dwHighDateTime << 32 | user.dwLowDateTime);
    return 1e-7 * (double)ticks;
}

double system_peak_bytes(void)
{
    PROCESS_MEMORY_COUNTERS counters = {.cb = sizeof counters};
    return GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters) ? (double)counters.PeakWorkingSetSize : 0;
}

/* ---------------------------------------------------------------- the machine */

/* A text of the registry; `text` stays as it is if it is not there. */
static void registry(const char *key, const char *name, char *text, DWORD size)
{
    char found[128];
    DWORD n = sizeof found;
    if (RegGetValueA(HKEY_LOCAL_MACHINE, key, name, RRF_RT_REG_SZ, NULL, found, &n) == ERROR_SUCCESS) snprintf(text, size, "%s", found);
}

void system_facts(struct system_facts *facts)
{
    char product[128] = "Windows", build[128] = "unknown";
    SYSTEM_INFO info;
    MEMORYSTATUSEX memory = {.dwLength = sizeof memory};
    GetNativeSystemInfo(&info);
    *facts = (struct system_facts){.n_cpus = info.dwNumberOfProcessors};
    registry("SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion", "ProductName", product, sizeof product);
    registry("SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion", "CurrentBuildNumber", build, sizeof build);
    snprintf(facts->os, sizeof facts->os, "%s, build %s", product, build);
    snprintf(facts->machine, sizeof facts->machine, "%s", info.wProcessorArchitecture == PROCESSOR_ARCHITECTURE_AMD64 ? "x86_64"
                                                       : info.wProcessorArchitecture == PROCESSOR_ARCHITECTURE_ARM64 ? "aarch64" : "unknown");
    snprintf(facts->cpu, sizeof facts->cpu, "unknown");
    registry("HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0", "ProcessorNameString", facts->cpu, sizeof facts->cpu);
    if (GlobalMemoryStatusEx(&memory)) facts->memory_bytes = (double)memory.ullTotalPhys;
}

/* What Windows tells without a driver of one's own is a nominal clock, so nothing is told. */
double system_cpu_mhz(void) { return 0; }
double system_gpu_mhz(void) { return 0; }
double system_celsius(char *sensor, size_t size) { (void)sensor; (void)size; return 0; }
