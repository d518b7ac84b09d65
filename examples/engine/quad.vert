#version 450
/* One instance is one quad (struct quad of draw.h), four corners of a triangle strip. */
layout(location = 0) in vec4 rect;           /* middle x, y and half width, half height, in pixels of the canvas */
layout(location = 1) in vec4 form;           /* radius of the corners, width at the top as a share, softness of the edge, angle */
layout(location = 2) in vec4 uv;             /* of the atlas, left top and right bottom */
layout(location = 3) in vec4 top_colour;
layout(location = 4) in vec4 bottom_colour;
layout(location = 5) in float glow;          /* 0: covers what is below, 1: adds to it */

layout(constant_id = 0) const uint KIND = 0;
layout(push_constant) uniform Push { vec2 canvas; };

layout(location = 0) out vec2 at;            /* from the middle, not rotated */
layout(location = 1) out vec2 texel;
layout(location = 2) out vec4 colour;
layout(location = 3) flat out vec4 shape;    /* half width, half height, radius, width at the top */
layout(location = 4) flat out vec2 edge;     /* softness, glow */

void main()
{
    vec2 corner = vec2(gl_VertexIndex & 1, gl_VertexIndex >> 1) * 2.0 - 1.0;
    at = corner * (rect.zw + (KIND == 1 ? 1.0 : 0.0));       /* room for the edge of a shape */
    texel = mix(uv.xy, uv.zw, corner * 0.5 + 0.5);
    colour = mix(top_colour, bottom_colour, corner.y * 0.5 + 0.5);
    shape = vec4(rect.zw, form.xy);
    edge = vec2(form.z, glow);
    float c = cos(form.w), s = sin(form.w);
    vec2 pixel = rect.xy + vec2(c * at.x - s * at.y, s * at.x + c * at.y);
    gl_Position = vec4(pixel / canvas * 2.0 - 1.0, 0.0, 1.0);
}
