/* Push constants, shared by C and GLSL. Offsets are in words: of the workspace (ws_), of the tables buffer (tab_) or of a KV slab. At most 128 bytes each. */
#ifndef VKM_ABI_H
#define VKM_ABI_H

#ifndef VULKAN     /* defined by GLSL for Vulkan */
#  include <stdint.h>
   typedef uint32_t uint;
#  define VKM_STRUCT struct
#else
#  define VKM_STRUCT
#endif

#define VKM_NONE 0xffffffffu
#define VKM_PANEL 32            /* rows of a weight panel */
#define VKM_TILE_CLASSES 7      /* token tiles of 1, 4, 8, 16, 32, 64, 128 rows. Rows are cut into tiles one after another, each of the last class c that takes what is left: tile_from[c] <= left */
#define VKM_TILE_NEVER 255      /* a class not in use */
#define VKM_PIECES_MAX 16       /* dispatches that a class's tiles may come in */
#define VKM_FEW_ROWS 8          /* tokens whose slots moe_topk sorts itself, at most */
#define VKM_JOINED_ROWS 32      /* and moe_logits (joined_rows of vkm_shape) */
#define VKM_ROUTED_ROWS 64      /* and moe_route with caps.scalar_loads, if they have no more slots than */
#define VKM_ROUTED_SLOTS 256
#define VKM_SORT_CHUNK 256      /* slots that one workgroup of moe_count and moe_permute walks */

/* A weight: row chunks of whole panels. tables[tab_weight + VKM_CHUNK_WORDS (expert * n_chunks + chunk)] = {slab, uvec4 offset, device address (two words; zero unless the
 * device has caps.scalar_loads)}. */
#define VKM_CHUNK_WORDS 4

/* linear: y[n][rows] = x[n][k] W^T + bias.  moe_gate_up: h = act(gate) * up over tiles.  moe_down: y[slot] = weight * (W h + bias) over tiles */
struct vkm_push_matmul {
    uint tab_weight, n_chunks, chunk_panels, n_panels;
    uint kb;                    /* blocks of 32 columns */
    uint rows;                  /* valid outputs: rows of W, or features of a gate|up pair */
    uint n;                     /* tokens (linear), or slots */
    uint first;                 /* first token of this dispatch (linear) */
    uint ws_x, ld_x, ws_y, ld_y;
    uint tab_bias;              /* VKM_EPILOGUE_BIASED: [experts][rows], of pairs [experts][2][rows] */
    uint ws_tiles, ws_perm, ws_scale;   /* MoE: tile list, sorted row -> slot, routing weight of a slot */
    uint n_used;                /* MoE: k */
    uint ws_address[2];         /* of the workspace, with caps.scalar_loads */
    float act_alpha, act_limit, act_add;   /* VKM_EPILOGUE_LIMITED */
    uint ws_slots;              /* VKM_EPILOGUE_WEIGHT_FIRST: sorted row -> slot, whose weight it is */
    uint tab_norm, width;       /* linear of tiles of one token whose norm it makes itself (NORMED): x is the residual stream */
    float eps;
    uint slab, at;              /* VKM_NONE, or the slab in which all panels of all experts lie one after another, from uvec4 `at` on: no table is asked then, but of cooperative matrices. With caps.scalar_loads
                                 * there is no slab, and from word `at` of the workspace on are the sums that block_sums made of x */
    uint ws_residual, ld_residual, ws_arrived;   /* VKM_EPILOGUE_ADD in moe_down (in linear ws_y is the residual stream); ws_arrived: a word a panel, 0 between passes */
    float residual;
};

/* What becomes of the sums, one constant of the pipeline: these bits, and an activation */
#define VKM_EPILOGUE_GLU 1              /* panels of gate and up: act(gate) * up */
#define VKM_EPILOGUE_ACT 1              /* shift: the activation, three bits */
#define VKM_EPILOGUE_BIASED 16          /* sums have biases: tab_bias */
#define VKM_EPILOGUE_WEIGHT_FIRST 32    /* the routing weight multiplies an expert's input instead of its output */
#define VKM_EPILOGUE_LIMITED 64         /* g sigmoid(alpha g) (u + add) of g up to limit and u within +-limit */
#define VKM_EPILOGUE_ADD 128            /* residual * y (linear), or that of the sum of a token's slots (moe_down), is added to the residual stream; not of cooperative matrices */
#define VKM_EPILOGUE_HALVES 512         /* cooperative matrices: y is f16, VKM_HALVED_WORDS a row */
#define VKM_EPILOGUE_NORMED 256         /* linear: tab_norm, width, eps; also a constant of its own */
#define VKM_ACT_SILU 0
#define VKM_ACT_GELU_TANH 1
#define VKM_ACT_GELU_ERF 2
#define VKM_ACT_RELU 3
#define VKM_ACT_RELU2 4
#define VKM_ACT_NONE 7

/* quantise: rows of x in kb blocks of 32 columns -> int8 and scales (shaders/matmul_dot.glsl); VKM_QUANTISED_WORDS a row. halve: -> f16; VKM_HALVED_WORDS a row. block_sums: -> the blocks' sums; VKM_SUMS_WORDS a row */
struct vkm_push_quantise { uint ws_x, ld_x, ws_out, ld_out, kb; };
#define VKM_QUANTISED_WORDS(kb) (((kb) * 10 + 3) / 4 * 4)
#define VKM_HALVED_WORDS(kb) ((kb) * 16)
#define VKM_SUMS_WORDS(kb) (((kb) + 3) / 4 * 4)

/* embed: x[t] = scale * E[token[t]] */
struct vkm_push_embed { uint tab_weight, chunk_panels, kb, ws_tokens, ws_x, ld_x, n_vocab; float scale; };

/* combine_norm: x[t] += scale * (sum_j y[t n_add + j] + gate[t] * shared[t]); out[t] = rmsnorm(x[t]) * weight, zero up to a multiple of 32. Rows of x and of out may be given by lists. */
struct vkm_push_combine_norm {
    uint ws_x_rows, ws_out_rows;                     /* u32 [n]: row t is that row; VKM_NONE: row t */
    uint ws_x, ld_x, width;
    uint ws_y, ld_y, n_add;
    uint ws_shared, ld_shared, ws_gate, ld_gate;     /* VKM_NONE: no shared expert; ws_gate VKM_NONE: weight 1 */
    uint tab_norm;                                   /* VKM_NONE: out is x */
    uint ws_out, ld_out;                             /* VKM_NONE: no out */
    float scale, eps;
};

/* The KV cache is an array of units, one for the keys and one for the values of each sequence in each layer, kv_units of them in a slab and kv_words apart:
 * a layer's keys of sequence s are unit k_unit + s, its values v_unit + s. Unit 0 is the first of the descriptor set's first slab. */

/* rope_store: per head of q, k, v: optional clamp and RMS norm, RoPE on q and k; q in place, k and v into the KV cache */
struct vkm_push_rope_store {
    uint ws_q, ld_q, ws_k, ld_k, ws_v, ld_v;
    uint n_head, n_head_kv;
    uint n_rot;
    uint ws_pos, ws_seq;            /* [n] position and sequence of a row */
    uint tab_q_norm, tab_k_norm;    /* VKM_NONE: none */
    uint tab_rope;                  /* cos, sin pairs: [256][n_rot/2] for pos % 256, then [][n_rot/2] for pos / 256 */
    uint k_unit, v_unit, kv_units, kv_words, n_ctx;
    float eps, clamp;               /* clamp 0: none */
};

/* attention: segments of consecutive rows of one sequence, each cut into tiles of NQ (token, query head of a kv head) rows */
struct vkm_push_attention {
    uint ws_q, ld_q, ws_out, ld_out;
    uint rows, tiles;               /* of a segment: tokens * heads of a kv head; ceil(rows / NQ) */
    uint n_head, n_head_kv;
    uint ws_pos, ws_seq;
    uint k_unit, v_unit, kv_units, kv_words, n_ctx;
    float scale;
    uint tab_kv, ws_address[2];     /* with caps.scalar_loads: device addresses, two words each, of the KV slabs; and of the workspace */
};

/* attention_one: a row a workgroup; the fields of both */
struct vkm_push_attention_one {
    uint ws_q, ld_q, ws_k, ld_k, ws_v, ld_v, ws_out, ld_out;
    uint n_head, n_head_kv, n_rot;
    uint ws_pos, ws_seq;
    uint tab_q_norm, tab_k_norm, tab_rope;
    uint k_unit, v_unit, kv_units, kv_words, n_ctx;
    float eps, clamp, scale;
};

/* moe_topk: logits[n][parts][n_expert (+1: gate of the shared expert)] -> ids[n][k], weight[n][k] by descending score, and the shared gate's sigmoid */
struct vkm_push_moe_topk {
    uint ws_logits, ld_logits, n_used;
    uint ws_ids, ws_weight, ws_gate;     /* ws_gate VKM_NONE: no shared gate */
    uint score;                          /* VKM_SCORE_... */
    uint renormalise;
    float scale;
    uint few;                            /* not 0: so many tokens, VKM_FEW_ROWS (VKM_JOINED_ROWS, VKM_ROUTED_ROWS) at most, for one workgroup, which also writes what moe_permute does (its pieces 1): */
    uint ws_perm, ws_tiles, tiles_max, ws_args, panels_up, panels_down;
    uint tile_from[2];                   /* by class, four bytes a word */
    uint group_panels;                   /* of a workgroup, by class, four bits each */
    uint tab_bias;                       /* selection bias [n_expert], where the kernel's BIAS says so */
};
/* moe_logits: the parts' sums of the logits of n tokens, to topk.ws_logits [n][parts][topk.ld_logits]; topk.few not 0: then as moe_topk. ws_arrived: VKM_JOINED_ROWS + 1 words that are 0 between passes.
 * NORMED: x is the residual stream, whose norm is made here and goes to ws_xn */
struct vkm_push_moe_logits {
    VKM_STRUCT vkm_push_moe_topk topk;
    uint slab, at;              /* the weights: uvec4 at in a slab */
    uint kb, ws_x, ld_x, ws_arrived;
    uint tab_norm, width, ws_xn, ld_xn;
    float eps;
};
/* moe_route: x[t] += residual * y[t], xn[t] = rmsnorm(x[t]) * weight, logits of an f32 router; then as moe_topk */
struct vkm_push_moe_route {
    VKM_STRUCT vkm_push_moe_topk topk;
    uint ws_x, ws_y, ws_xn, width, ld;   /* ld: of all three, whole blocks of columns */
    uint tab_norm, tab_weight;
    float residual, eps;
    uint ws_address[2], ws_arrived;      /* with caps.scalar_loads: the workspace's, and a word of it that is 0 between passes */
};
#define VKM_SCORE_SOFTMAX 0              /* over all experts */
#define VKM_SCORE_SELECTED 1             /* softmax over the selected logits */

/* moe_count, moe_permute: stable counting sort of n slots by expert; tiles and indirect arguments */
struct vkm_push_moe_sort {
    uint ws_ids, n_slots, n_expert;
    uint ws_counts;                      /* [chunks][n_expert] */
    uint ws_perm;
    uint ws_tiles, tiles_max;            /* [class][tiles_max][2]: expert | rows << 16, first sorted row */
    uint pieces, piece_tiles;            /* the tiles of a class come in so many dispatches of at most so many */
    uint ws_args;                        /* [class][piece][2][3]: workgroups of moe_gate_up, moe_down */
    uint panels_up, panels_down;         /* of an expert, in moe_gate_up and moe_down */
    uint tile_from[2];                   /* by class, four bytes a word */
    uint group_panels;                   /* of a workgroup, by class, four bits each */
};

/* moe_tally: counts[n_expert] += how often each expert is among n slots */
struct vkm_push_moe_tally { uint ws_ids, n_slots, n_expert, ws_counts; };

/* Routers that moe_topk has no room for: the kernels below and moe_count, moe_permute. vkm_router_desc (src/vkmoe.h) has the rules. */
/* moe_select: logits -> ids and weights of a token, and what others need of its scores */
struct vkm_push_moe_select {
    uint ws_logits, ld_logits;           /* VKM_NONE: there are none, every score is 1 */
    uint ws_noise, ld_noise;             /* VKM_NONE: none */
    uint ws_given, ws_given_weight;      /* hash: token ids [n]. Forced: ids [n][k], and weights or VKM_NONE */
    uint tab_bias, tab_scale, tab_hash, n_table;   /* tables or VKM_NONE */
    uint ws_ids, ws_weight;              /* [n][k]; ws_ids VKM_NONE: nothing is chosen */
    uint ws_probs, ws_lse;               /* [n][n_expert], [n], or VKM_NONE */
    uint ws_priority, ws_seed;           /* [n], [1], or VKM_NONE */
    uint ws_gate, gate_row;              /* ws_gate VKM_NONE: no shared gate */
    uint n_expert, n_used, n_groups, groups_used;
    uint rule;                           /* VKM_RULE_... */
    float scale, sum_min, sum_add, softcap, jitter;
};
#define VKM_RULE_SELECT(rule) ((rule) & 15u)         /* vkm_router_select */
#define VKM_RULE_HASH 2u
#define VKM_RULE_FORCED 3u
#define VKM_RULE_HIERARCHICAL 4u
#define VKM_RULE_SCORE(rule) ((rule) >> 4 & 15u)     /* vkm_router_score */
#define VKM_RULE_SOFTMAX 0u
#define VKM_RULE_SELECTED 1u
#define VKM_RULE_SIGMOID 2u
#define VKM_RULE_SQRT_SOFTPLUS 3u
#define VKM_RULE_IDENTITY 4u
#define VKM_RULE_SPARSEMIXER 5u
#define VKM_RULE_UNIFORM 6u
#define VKM_RULE_RENORMALISE 0x100u      /* over the chosen */
#define VKM_RULE_DEFER 0x200u            /* moe_keep renormalises, and scales */
#define VKM_RULE_SUM_OF_TWO 0x400u
#define VKM_RULE_NOISE_SCALED 0x800u
#define VKM_RULE_NORMALISED 0x1000u      /* probs add up to 1, whatever the score */
#define VKM_GROUPS_MOST 256

/* moe_choose: an expert's C tokens of n, from probs [n][n_expert] */
struct vkm_push_moe_choose { uint ws_probs, n, n_expert, capacity, tab_scale, ws_tokens, ws_ids, ws_weight; float scale; };
/* moe_rank: order[i] = the token with the i-th priority */
struct vkm_push_moe_rank { uint ws_priority, n, ws_order; };
/* moe_capacity: what of the chosen [n][k] an expert has room for; the others lose id and weight. n_tokens: of the probabilities. load: its summand of the load-balance loss */
struct vkm_push_moe_capacity { uint ws_chosen, n, n_used, n_tokens, n_expert, ws_order, capacity, ws_probs, ws_ids, ws_weight, ws_rows, ws_dropped, ws_load; };
/* moe_keep: of each token, how many of its slots were dropped, and weights made to add up to 1 over the others. Expert choice: tokens [n_expert][capacity], 1 for a token that nobody chose */
struct vkm_push_moe_keep { uint n, ws_ids, n_used, ws_tokens, n_expert, capacity, ws_weight, tab_scale, ws_missed; float scale, sum_min, sum_add; };
/* moe_loss: rows and load [n_expert], lse and missed [n] -> vkm_router_statistics */
struct vkm_push_moe_loss { uint ws_rows, ws_load, ws_lse, ws_missed, n, n_expert, ws_out; };
/* moe_combine: out[t] = sum of y[slot] over the slots of a token, in their order; as ws_tokens in moe_keep */
struct vkm_push_moe_combine { uint ws_ids, n_used, ws_tokens, n_expert, capacity, ws_y, ld_y, ws_out, ld_out, width; };
/* moe_mix: out[r] = sum over c < n of a[c] in[c], a being softmax over c of logits[r * row + c * column]. ws_ids: also ids[r] = r / each, weight[r] = 1; or VKM_NONE */
struct vkm_push_moe_mix { uint ws_logits, row, column, n, ws_in, ld_in, ws_out, ld_out, width, ws_ids, ws_weight, each; };

/* glu: out[row] = act(gate[row]) * up[row] */
struct vkm_push_glu { uint ws_gate, ws_up, ld, ws_out, ld_out, width; float act_alpha, act_limit, act_add; };

/* sample: logits[n][n_vocab] -> a token a row: into the recent tokens of its sequence and, with the next position, into the row */
struct vkm_push_sample {
    uint ws_logits, ld_logits, n_vocab;
    uint ws_scratch, ld_scratch;             /* [n][n_vocab] */
    uint ws_sampling, ws_recent;             /* of sequence 0 */
    uint ws_tokens, ws_pos, ws_seq;          /* [n] */
};

/* vkmoe bench. fill: n4 times four words of the buffer that is bound as the workspace. read, copy: parts of `each` times four words a lane. alu: n iterations; a, b: -1 and 1.
 * weights: panels from uvec4 `at` on, the first being number first_panel of its matrix; planes: as vkm_panel_planes has them */
struct vkm_push_bench_fill { uint n4, first; };
struct vkm_push_bench_read { uint each, parts, ws_out; };
struct vkm_push_bench_alu { uint n, ws_out; float a, b; };
struct vkm_push_bench_weights { uint at, kb, first_panel, seed, identity, planes; float scale; };

/* The step state in the workspace: for each sequence VKM_SAMPLING_WORDS of parameters; for each its last VKM_RECENT tokens, that of position p at p % VKM_RECENT;
 * then for each row of a pass its token, its position, its sequence. */
#define VKM_SAMPLING_SEED 0
#define VKM_SAMPLING_TEMPERATURE 1       /* floats as bits */
#define VKM_SAMPLING_TOP_K 2
#define VKM_SAMPLING_TOP_P 3
#define VKM_SAMPLING_MIN_P 4
#define VKM_SAMPLING_PENALTY 5
#define VKM_SAMPLING_LAST_N 6
#define VKM_SAMPLING_LOGIT_SCALE 7       /* the logits in the workspace have not been divided by it (Granite; else 1) */
#define VKM_SAMPLING_WORDS 8
#define VKM_RECENT 256                   /* tokens of the repetition penalty's window at most; also the ring that the host reads */

#endif
