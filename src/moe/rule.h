/* The steps of a router beyond moe_topk; for router.c. */
#ifndef VKM_MOE_RULE_H
#define VKM_MOE_RULE_H

#include "layer.h"

/* From logits to ids and weights of every slot; of soft MoE also the experts' rows. */
vkm_result vkm_rule_route(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, struct vkm_region x, uint32_t n);
/* Statistics, where there is room for them. */
vkm_result vkm_rule_watch(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, uint32_t n);

#endif
