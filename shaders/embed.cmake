# cmake -DIN=FILE.spv -DOUT=FILE.h -DNAME=ARRAY -P embed.cmake: a SPIR-V module as a C string, for which gcc takes a third of the time of an array of words.
file(READ ${IN} hex HEX)
string(REGEX REPLACE ".." "\\\\x\\0" bytes "${hex}")
file(WRITE ${OUT} "_Alignas(4) static const char ${NAME}[] = \"${bytes}\";\n")
