/* What pictures are made of: quads on a canvas, drawn in their order by one instanced shader. Pixels of the canvas count from the left top; the window may be larger. */
#ifndef ENGINE_DRAW_H
#define ENGINE_DRAW_H

#include "gpu.h"

#define CANVAS_WIDTH 1280
#define CANVAS_HEIGHT 720
#define MOST_QUADS 16384

struct quad {
    float x, y, half_width, half_height;     /* x, y: its middle */
    float radius, top, soft, angle;          /* top: width there as a share of the bottom's. soft: the edge fades inwards over so many pixels. Of a letter: radius makes it bolder */
    float uv[4];
    uint8_t top_colour[4], bottom_colour[4];
    float glow;
};

struct canvas { struct quad quads[MOST_QUADS]; uint32_t n; };

typedef uint32_t colour;                     /* 0xRRGGBBAA */

struct quad *draw(struct canvas *c, float x, float y, float width, float height, colour of);   /* x, y: left top. Its quad, to be made special; never NULL */
void draw_shape(struct canvas *c, float x, float y, float width, float height, float radius, float top, colour of);
void draw_fade(struct canvas *c, float x, float y, float width, float height, colour from, colour to);
void draw_disc(struct canvas *c, float x, float y, float radius, colour of);                   /* x, y: its middle */
void draw_glow(struct canvas *c, float x, float y, float radius, colour of);                   /* light */
void draw_limb(struct canvas *c, float x0, float y0, float x1, float y1, float width, colour of);
colour mix(colour a, colour b, float share_of_b);
colour fade(colour of, float alpha);

/* text.c. Sizes are heights of capitals in pixels; y is the top of the line, lines are LINE apart. UTF-8; letters that the font lacks are boxes. */
#define LINE(size) ((size) * 1.62f)
struct style { float size, bold; colour of; };
float text_width(const char *text, size_t n, struct style s);
float text_draw(struct canvas *c, float x, float y, const char *text, size_t n, struct style s);   /* returns where it ends */
/* Cuts off the first line that fits a width, at a space if there is one; returns where the next begins, NULL after the last. */
const char *text_wrap(const char *text, float width, struct style s, size_t *n);
#define ATLAS_WIDTH 512
#define ATLAS_HEIGHT 264
void text_atlas(uint8_t *pixels);            /* [ATLAS_HEIGHT][ATLAS_WIDTH] */

/* render.c: a pipeline for each kind of quad */
enum kind { PLAIN, SHAPE, LETTER, KINDS };
struct renderer {
    VkShaderModule vertex, fragment;
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
    VkPipeline pipelines[KINDS];
    VkImage atlas;
    VkImageView view;
    VkDeviceMemory memory;
    VkSampler sampler;
    VkDescriptorPool pool;
    VkDescriptorSet set;
};
void renderer_create(struct renderer *r, struct gpu *g);
void renderer_destroy(struct renderer *r, struct gpu *g);
void renderer_draw(const struct renderer *r, const struct gpu *g, const struct frame *f, const struct canvas *c);   /* between gpu_begin_drawing and gpu_end */

#endif
