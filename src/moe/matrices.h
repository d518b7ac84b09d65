/* The weights of a public layer: checked and placed. */
#ifndef VKM_MOE_MATRICES_H
#define VKM_MOE_MATRICES_H

#include "layer.h"
#include "nn/weights.h"

/* Fills what the weights and the description's dimensions say of *moe; the routing is the caller's. router_rows: vkm_router_rows(). */
vkm_result vkm_moe_place_weights(const vkm_moe_layer_desc *desc, const vkm_moe_weights *weights, uint32_t router_rows, struct vkm_plan *plan, struct vkm_moe *moe, vkm_error *err);

#endif
