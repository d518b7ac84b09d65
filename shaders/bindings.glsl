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
layout(set = 0, binding = 3) readonly buffer Tables  { uint u[]; }  tables;
layout(set = 0, binding = 3) readonly buffer TablesF { float f[]; } tablesf;
