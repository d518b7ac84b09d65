# vkmoe::pcre2, the 8-bit library of PCRE2, if it is there: for building vkmoe, and for who links the static library.
if(NOT TARGET vkmoe::pcre2)
  find_path(VKMOE_PCRE2_INCLUDE_DIR pcre2.h)
  find_library(VKMOE_PCRE2_LIBRARY NAMES pcre2-8 pcre2-8-static)
  mark_as_advanced(VKMOE_PCRE2_INCLUDE_DIR VKMOE_PCRE2_LIBRARY)
  if(VKMOE_PCRE2_INCLUDE_DIR AND VKMOE_PCRE2_LIBRARY)
    add_library(vkmoe::pcre2 UNKNOWN IMPORTED GLOBAL)
    set_target_properties(vkmoe::pcre2 PROPERTIES IMPORTED_LOCATION ${VKMOE_PCRE2_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${VKMOE_PCRE2_INCLUDE_DIR})
    if(WIN32 AND NOT VKMOE_PCRE2_LIBRARY MATCHES "\\.dll\\.a$")
      set_target_properties(vkmoe::pcre2 PROPERTIES INTERFACE_COMPILE_DEFINITIONS PCRE2_STATIC)   # else its header declares imports of a DLL
    endif()
  endif()
endif()
