/* sync() is barrier(), or no more than order in memory where the workgroup is known to be one subgroup (ONE_SUBGROUP, a condition on specialisation constants): CPU drivers make
 * coroutines of what stands between barriers, which takes them long to compile and to run. */
#ifdef TIER_BASELINE
void sync() { barrier(); }
#else
#extension GL_KHR_shader_subgroup_basic : require
void sync() { if (ONE_SUBGROUP) subgroupBarrier(); else barrier(); }
#endif
