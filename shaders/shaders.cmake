# Compiles every row of shaders/variants.txt to SPIR-V, embeds it, and writes the table vkm_modules (host/kernel.h).
# A row is: NAME VARIANT TIER FILE [DEFINE...]; VARIANT "-" is the empty one. Rows under a line "needs VERSION" are left out, and said, when glslang is older.
find_program(GLSLANG NAMES glslangValidator glslang REQUIRED)
execute_process(COMMAND ${GLSLANG} --version OUTPUT_VARIABLE glslang_text ERROR_QUIET)
string(REGEX MATCH "Glslang Version: [0-9]*:?([0-9]+)\\.([0-9]+)" ignored "${glslang_text}")
set(VKMOE_GLSLANG_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}")
message(STATUS "glslang ${VKMOE_GLSLANG_VERSION}: ${GLSLANG}")

set(VKMOE_SHADER_INCLUDE ${PROJECT_BINARY_DIR}/spirv)
file(MAKE_DIRECTORY ${VKMOE_SHADER_INCLUDE})
file(GLOB shader_includes CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.glsl ${CMAKE_CURRENT_LIST_DIR}/abi.h)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/variants.txt)
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/variants.txt rows REGEX "^[a-z]")
set(includes "")
set(table "")
set(headers "")
set(needs 0)
set(left_out "")
set(VKMOE_SPIRV_FILES "")
foreach(row IN LISTS rows)
  string(REGEX REPLACE "[ \t]+" ";" row "${row}")
  list(POP_FRONT row name)
  if(name STREQUAL "needs")
    list(GET row 0 needs)
    continue()
  endif()
  list(POP_FRONT row variant tier file)
  if(variant STREQUAL "-")
    set(variant "")
  endif()
  set(id "${name}_${variant}_${tier}")
  string(TOUPPER ${tier} TIER)
  list(TRANSFORM row PREPEND "-D")
  if(needs VERSION_GREATER VKMOE_GLSLANG_VERSION)
    list(APPEND left_out "${name} ${variant} (${tier})")
    string(APPEND table "    {\"${name}\", \"${variant}\", VKM_TIER_${TIER}, 0, 0},\n")
    continue()
  endif()
  set(spv ${VKMOE_SHADER_INCLUDE}/${id}.spv)
  set(header ${VKMOE_SHADER_INCLUDE}/${id}.h)
  add_custom_command(OUTPUT ${header} ${spv}
    COMMAND ${GLSLANG} --quiet -V --target-env vulkan1.1 -I${CMAKE_CURRENT_LIST_DIR} -DTIER_${TIER}=1 ${row} -o ${spv} ${CMAKE_CURRENT_LIST_DIR}/${file}
    COMMAND ${GLSLANG} --quiet -V --target-env vulkan1.1 -I${CMAKE_CURRENT_LIST_DIR} -DTIER_${TIER}=1 ${row} --vn vkm_spv_${id} -o ${header} ${CMAKE_CURRENT_LIST_DIR}/${file}
    DEPENDS ${CMAKE_CURRENT_LIST_DIR}/${file} ${shader_includes} VERBATIM)
  list(APPEND headers ${header})
  list(APPEND VKMOE_SPIRV_FILES ${spv})
  string(APPEND includes "#include \"${id}.h\"\n")
  string(APPEND table "    {\"${name}\", \"${variant}\", VKM_TIER_${TIER}, vkm_spv_${id}, sizeof vkm_spv_${id} / 4},\n")
endforeach()
if(left_out)
  list(LENGTH left_out n_left_out)
  list(GET left_out 0 first_left_out)
  message(STATUS "left out: ${n_left_out} kernels, ${first_left_out} ..., need glslang ${needs} (-DGLSLANG=...)")
endif()
file(CONFIGURE OUTPUT ${VKMOE_SHADER_INCLUDE}/modules.c @ONLY CONTENT
"/* generated from shaders/variants.txt */
#include \"host/kernel.h\"
@includes@
const struct vkm_module vkm_modules[] = {
@table@};
const size_t vkm_module_count = sizeof vkm_modules / sizeof vkm_modules[0];
")
set(VKMOE_SHADER_SOURCES ${VKMOE_SHADER_INCLUDE}/modules.c)
set_source_files_properties(${VKMOE_SHADER_SOURCES} PROPERTIES OBJECT_DEPENDS "${headers}")
add_custom_target(vkmoe_shaders DEPENDS ${headers})
