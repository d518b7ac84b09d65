# Compiles every row of shaders/variants.txt to SPIR-V, embeds it, and writes the table vkm_modules (host/kernel.h).
# A row is: NAME VARIANT TIER FILE [DEFINE...]; VARIANT "-" is the empty one. Rows under a line "needs VERSION" are left out, and said, when glslang is older.
# VKMOE_SPIRV_DIR names a folder that has the modules as headers already (another build's spirv/): then no glslang is needed.
set(VKMOE_SPIRV_DIR "" CACHE PATH "Take the SPIR-V headers of this folder instead of compiling shaders")
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/spirv)
if(VKMOE_SPIRV_DIR)
  get_filename_component(VKMOE_SHADER_INCLUDE ${VKMOE_SPIRV_DIR} ABSOLUTE BASE_DIR ${CMAKE_SOURCE_DIR})
  message(STATUS "SPIR-V from ${VKMOE_SHADER_INCLUDE}")
else()
  set(VKMOE_SHADER_INCLUDE ${PROJECT_BINARY_DIR}/spirv)
  find_program(GLSLANG NAMES glslangValidator glslang REQUIRED)
  execute_process(COMMAND ${GLSLANG} --version OUTPUT_VARIABLE glslang_text ERROR_QUIET)
  string(REGEX MATCH "Glslang Version: [0-9]*:?([0-9]+)\\.([0-9]+)" ignored "${glslang_text}")
  set(VKMOE_GLSLANG_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}")
  message(STATUS "glslang ${VKMOE_GLSLANG_VERSION}: ${GLSLANG}")
endif()

file(GLOB shader_includes CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.glsl ${CMAKE_CURRENT_LIST_DIR}/abi.h)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/variants.txt)
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/variants.txt rows REGEX "^[a-z]")
set(includes "")
set(table "")
set(headers "")
set(needs 0)
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
  set(missing "")
  set(header ${VKMOE_SHADER_INCLUDE}/${id}.h)
  if(VKMOE_SPIRV_DIR)
    if(NOT EXISTS ${header})
      set(missing "is not in ${VKMOE_SHADER_INCLUDE}")
    endif()
  elseif(needs VERSION_GREATER VKMOE_GLSLANG_VERSION)
    set(missing "needs glslang ${needs}")
  endif()
  if(missing)
    message(STATUS "left out: ${name} ${variant} (${tier}) ${missing}")
    string(APPEND table "    {\"${name}\", \"${variant}\", VKM_TIER_${TIER}, 0, 0},\n")
    continue()
  endif()
  if(NOT VKMOE_SPIRV_DIR)
    set(spv ${VKMOE_SHADER_INCLUDE}/${id}.spv)
    add_custom_command(OUTPUT ${header} BYPRODUCTS ${spv}
      COMMAND ${GLSLANG} --quiet -V --target-env vulkan1.1 -I${CMAKE_CURRENT_LIST_DIR} -DTIER_${TIER}=1 ${row} -o ${spv} ${CMAKE_CURRENT_LIST_DIR}/${file}
      COMMAND ${CMAKE_COMMAND} -DIN=${spv} -DOUT=${header} -DNAME=vkm_spv_${id} -P ${CMAKE_CURRENT_LIST_DIR}/embed.cmake
      DEPENDS ${CMAKE_CURRENT_LIST_DIR}/${file} ${CMAKE_CURRENT_LIST_DIR}/embed.cmake ${shader_includes} VERBATIM)
  endif()
  list(APPEND headers ${header})
  string(APPEND includes "#include \"${id}.h\"\n")
  string(APPEND table "    {\"${name}\", \"${variant}\", VKM_TIER_${TIER}, vkm_spv_${id}, sizeof vkm_spv_${id} / 4},\n")
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/spirv/modules.c @ONLY CONTENT
"/* generated from shaders/variants.txt */
#include \"host/kernel.h\"
@includes@
const struct vkm_module vkm_modules[] = {
@table@};
const size_t vkm_module_count = sizeof vkm_modules / sizeof vkm_modules[0];
")
set(VKMOE_SHADER_SOURCES ${PROJECT_BINARY_DIR}/spirv/modules.c)
set_source_files_properties(${VKMOE_SHADER_SOURCES} PROPERTIES OBJECT_DEPENDS "${headers}")
add_custom_target(vkmoe_shaders DEPENDS ${headers})
