# cmake -DIN=FILE.spv -DOUT=FILE.h -DNAME=ARRAY -P embed.cmake: a SPIR-V module as a C array of words.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1,\\n" words "${hex}")
file(WRITE ${OUT} "#include <stdint.h>\nstatic const uint32_t ${NAME}[] = {\n${words}};\n")
