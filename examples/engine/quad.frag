#version 450
layout(constant_id = 0) const uint KIND = 0;     /* enum kind of draw.h. One pipeline a kind: CPU drivers walk through branches that they do not take */
const uint PLAIN = 0, SHAPE = 1, LETTER = 2;

layout(location = 0) in vec2 at;
layout(location = 1) in vec2 texel;
layout(location = 2) in vec4 colour;
layout(location = 3) flat in vec4 shape;
layout(location = 4) flat in vec2 edge;
layout(location = 0) out vec4 result;            /* premultiplied: alpha 0 adds light */

layout(set = 0, binding = 0) uniform sampler2D atlas;

/* Distance to an upright isosceles trapezoid with half widths t at the top and b at the bottom and half height h; after Inigo Quilez, "2D distance functions". */
float trapezoid(vec2 p, float t, float b, float h)
{
    vec2 k1 = vec2(b, h), k2 = vec2(b - t, 2.0 * h);
    p.x = abs(p.x);
    vec2 ca = vec2(p.x - min(p.x, p.y < 0.0 ? t : b), abs(p.y) - h);
    vec2 cb = p - k1 + k2 * clamp(dot(k1 - p, k2) / max(dot(k2, k2), 1e-6), 0.0, 1.0);
    return (cb.x < 0.0 && ca.y < 0.0 ? -1.0 : 1.0) * sqrt(min(dot(ca, ca), dot(cb, cb)));
}

void main()
{
    float cover = 1.0;
    if (KIND == LETTER) cover = clamp((textureLod(atlas, texel, 0.0).r - 0.5 + shape.z) / edge.x + 0.5, 0.0, 1.0);
    if (KIND == SHAPE) {
        vec2 half_size = shape.xy - shape.z;
        float inside = shape.z - trapezoid(at, max(shape.x * shape.w - shape.z, 0.0), half_size.x, half_size.y);
        cover = edge.x > 1.0 ? smoothstep(0.0, 1.0, inside / edge.x) : clamp(inside + 0.5, 0.0, 1.0);
    }
    float alpha = clamp(colour.a, 0.0, 1.0) * cover;
    result = vec4(colour.rgb * alpha, alpha * (1.0 - edge.y));
}
