/* What becomes of an expert's sums between its matmuls. EPILOGUE (bits of abi.h) is a constant of the pipeline and the parameters are those of `push`, so that what a kernel
 * does not need folds away. Rules: moe-models facts, section 3; gated linear units: Shazeer 2020. */
const uint GLU = EPILOGUE & VKM_EPILOGUE_GLU;
const uint ACT = EPILOGUE >> VKM_EPILOGUE_ACT & 7u;
const bool BIASED = (EPILOGUE & VKM_EPILOGUE_BIASED) != 0;
const bool WEIGHT_FIRST = (EPILOGUE & VKM_EPILOGUE_WEIGHT_FIRST) != 0;
const bool HALVES = (EPILOGUE & VKM_EPILOGUE_HALVES) != 0;
const bool ADDED = (EPILOGUE & VKM_EPILOGUE_ADD) != 0;
const bool LIMITED = (EPILOGUE & VKM_EPILOGUE_LIMITED) != 0;

/* Abramowitz & Stegun 7.1.26: within 1.5e-7. */
float erf_(float v) {
    float x = abs(v), t = 1.0 / (1.0 + 0.3275911 * x);
    float p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(v) * (1.0 - p * exp(-x * x));
}

float activate(float v) {
    if (ACT == VKM_ACT_SILU) return v / (1.0 + exp(-v));
    if (ACT == VKM_ACT_GELU_TANH) return v / (1.0 + exp(-1.5957691216057308 * (v + 0.044715 * v * v * v)));   /* (1 + tanh(z)) / 2 = 1 / (1 + exp(-2 z)), which cannot overflow to NaN */
    if (ACT == VKM_ACT_GELU_ERF) return 0.5 * v * (1.0 + erf_(v * 0.7071067811865476));
    if (ACT == VKM_ACT_RELU) return max(v, 0.0);
    if (ACT == VKM_ACT_RELU2) return max(v, 0.0) * max(v, 0.0);
    return v;
}

/* Of a gate's and an up's sum. LIMITED: gpt-oss, DeepSeek-V4. */
float gated(float g, float u) {
    if (!LIMITED) return activate(g) * u;
    g = min(g, push.act_limit);
    u = clamp(u, -push.act_limit, push.act_limit);
    return g / (1.0 + exp(-push.act_alpha * g)) * (u + push.act_add);
}
