/* What the program wants of the operating system beyond host/platform.h: system_posix.c and system_windows.c. */
#ifndef VKM_CLI_SYSTEM_H
#define VKM_CLI_SYSTEM_H

#include "host/platform.h"

/* First of all: a closed pipe is to be seen as an error, not as a signal, so that devices are closed in order; bytes are to be written as they are. */
void system_start(void);
/* The first interrupt calls the handler, the second ends the program. */
void system_on_interrupt(void (*handler)(int number));
bool system_is_terminal(FILE *f);
bool system_is_pipe(FILE *f);

enum system_file { SYSTEM_NONE, SYSTEM_REGULAR, SYSTEM_FOLDER, SYSTEM_OTHER };
enum system_file system_file_kind(const char *path);
/* What a name that may be a symbolic link stands for. false: not there, or too long */
bool system_real_path(const char *path, char *real, size_t size);
/* The folder that the program lies in, and the one where the user's programs keep what can be made anew, which exists; without a separator at the end. */
bool system_program_folder(char *path, size_t size);
bool system_cache_folder(char *path, size_t size);
/* A new folder with a name that begins so; tells where it tried. */
bool system_temporary_folder(const char *prefix, char *path, size_t size);
void system_remove_folder(const char *path);              /* and what is in it */
void system_set_variable(const char *name, const char *value);   /* of the environment; NULL: none */

uint64_t system_seed(void);                                /* another one each time */
double system_cpu_seconds(void);                           /* of the process so far, all its threads */
double system_peak_bytes(void);                            /* most memory that it had */

/* What this machine is: "unknown" and 0 where the system does not tell. */
struct system_facts { char os[320], machine[64], cpu[128]; uint32_t n_cpus; double memory_bytes; };
void system_facts(struct system_facts *facts);
double system_cpu_mhz(void);
double system_gpu_mhz(void);
double system_celsius(char *sensor, size_t size);          /* of the hottest of processors and graphics cards, and its name */

#endif
