/* Touches everything that can be reached through the GGUF reader's interface: what fuzzing and mutation tests run on a file that opens. */
#ifndef REF_GGUFWALK_H
#define REF_GGUFWALK_H

#include "gguf/gguf.h"

/* Every key through every getter, every array element, every name looked up, both ends of all tensor data. Returns a checksum of what it saw. */
uint64_t ref_gguf_walk(const vkm_gguf *g);

#endif
