/* Descriptor set 0 of every kernel (host/kernel.h). The arrays' sizes are the device's; several views of one buffer differ in element type only. */
#extension GL_EXT_control_flow_attributes : require
#ifdef TIER_FP16
#  extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
layout(constant_id = 0) const uint SLABS = 1;
layout(constant_id = 1) const uint KV_SLABS = 1;
layout(local_size_x_id = 2, local_size_y_id = 3) in;

layout(set = 0, binding = 0) readonly buffer Slab  { uint w[]; }  slabs[SLABS];
layout(set = 0, binding = 0) readonly buffer Slab4 { uvec4 w[]; } slabs4[SLABS];
#ifndef WS_ACCESS
#  define WS_ACCESS
#endif
layout(set = 0, binding = 1) WS_ACCESS buffer Workspace  { float f[]; } ws;
layout(set = 0, binding = 1) WS_ACCESS buffer Workspace4 { vec4 f[]; }  ws4;
layout(set = 0, binding = 1) WS_ACCESS buffer WorkspaceU { uint u[]; }  wsu;
layout(set = 0, binding = 2) buffer Kv  { uint w[]; }  kv[KV_SLABS];
layout(set = 0, binding = 2) buffer Kv4 { uvec4 w[]; } kv4[KV_SLABS];
layout(set = 0, binding = 3) readonly buffer Tables  { uint u[]; }  tables;
layout(set = 0, binding = 3) readonly buffer TablesF { float f[]; } tablesf;
layout(set = 0, binding = 3) readonly buffer Tables4 { vec4 f[]; } tables4;

/* What is loaded often. With TEXELS by way of texel buffers: the set's first slab, the workspace and the tables as floats, the first slab of the KV cache (caps.texel_loads). */
#ifdef TEXELS
layout(set = 0, binding = 4, rgba32ui) readonly uniform uimageBuffer slab_quads;
layout(set = 0, binding = 5, r32ui) readonly uniform uimageBuffer slab_words;
layout(set = 0, binding = 6, rgba32f) readonly uniform imageBuffer ws_quads;
layout(set = 0, binding = 7, rgba32ui) readonly uniform uimageBuffer kv_quads;
layout(set = 0, binding = 8, rgba32f) readonly uniform imageBuffer table_quads;
#  define SLAB_QUAD(slab, i) imageLoad(slab_quads, int(i))
#  define SLAB_WORD(slab, i) imageLoad(slab_words, int(i)).x
#  define WS_QUAD(i) imageLoad(ws_quads, int(i))
#  define WS_FLOAT(i) imageLoad(ws_quads, int((i) / 4))[(i) % 4]
#  define TABLE_QUAD(i) imageLoad(table_quads, int(i))
#  define TABLE_FLOAT(i) imageLoad(table_quads, int((i) / 4))[(i) % 4]
#  define KV_QUAD(slab, i) imageLoad(kv_quads, int(i))
#else
#  define SLAB_QUAD(slab, i) slabs4[slab].w[i]
#  define SLAB_WORD(slab, i) slabs[slab].w[i]
#  define WS_QUAD(i) ws4.f[i]
#  define WS_FLOAT(i) ws.f[i]
#  define TABLE_QUAD(i) tables4.f[i]
#  define TABLE_FLOAT(i) tablesf.f[i]
#  define KV_QUAD(slab, i) kv4[slab].w[i]
#endif
