/* One instanced shader for everything that is seen, and the font's atlas. */
#include "draw.h"
#include <stddef.h>
#include <string.h>
#include "quad_vert.h"
#include "quad_frag.h"

static VkShaderModule module(const struct gpu *g, const uint32_t *words, size_t bytes)
{
    VkShaderModule made;
    VK(vkCreateShaderModule(g->device, &(VkShaderModuleCreateInfo){.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = words}, NULL, &made));
    return made;
}

static void create_atlas(struct renderer *r, struct gpu *g)
{
    const VkExtent3D size = {ATLAS_WIDTH, ATLAS_HEIGHT, 1};
    const VkImageSubresourceRange all = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
    VkMemoryRequirements needs;
    VK(vkCreateImage(g->device, &(VkImageCreateInfo){.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO, .imageType = VK_IMAGE_TYPE_2D, .format = VK_FORMAT_R8_UNORM, .extent = size, .mipLevels = 1, .arrayLayers = 1,
        .samples = VK_SAMPLE_COUNT_1_BIT, .tiling = VK_IMAGE_TILING_OPTIMAL, .usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT}, NULL, &r->atlas));
    vkGetImageMemoryRequirements(g->device, r->atlas, &needs);
    r->memory = gpu_allocate(g, needs, false, NULL);
    VK(vkBindImageMemory(g->device, r->atlas, r->memory, 0));
    VK(vkCreateImageView(g->device, &(VkImageViewCreateInfo){.sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO, .image = r->atlas, .viewType = VK_IMAGE_VIEW_TYPE_2D, .format = VK_FORMAT_R8_UNORM, .subresourceRange = all}, NULL, &r->view));

    VkDeviceMemory memory;
    void *pixels;
    VkBuffer staging = gpu_buffer(g, ATLAS_WIDTH * ATLAS_HEIGHT, VK_BUFFER_USAGE_TRANSFER_SRC_BIT, &memory, &pixels);
    text_atlas(pixels);
    VkCommandBuffer commands = gpu_once_begin(g);
    VkImageMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER, .dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT, .oldLayout = VK_IMAGE_LAYOUT_UNDEFINED, .newLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                                    .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED, .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED, .image = r->atlas, .subresourceRange = all};
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, 1, &barrier);
    vkCmdCopyBufferToImage(commands, staging, r->atlas, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &(VkBufferImageCopy){.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = size});
    barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT, barrier.dstAccessMask = VK_ACCESS_SHADER_READ_BIT;
    barrier.oldLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, barrier.newLayout = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL;
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_FRAGMENT_SHADER_BIT, 0, 0, NULL, 0, NULL, 1, &barrier);
    gpu_once_end(g, commands);
    vkDestroyBuffer(g->device, staging, NULL);
    vkFreeMemory(g->device, memory, NULL);
}

static void create_set(struct renderer *r, struct gpu *g)
{
    VK(vkCreateSampler(g->device, &(VkSamplerCreateInfo){.sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO, .magFilter = VK_FILTER_LINEAR, .minFilter = VK_FILTER_LINEAR,
        .addressModeU = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE, .addressModeV = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE, .addressModeW = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE}, NULL, &r->sampler));
    VK(vkCreateDescriptorSetLayout(g->device, &(VkDescriptorSetLayoutCreateInfo){.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = 1,
        .pBindings = &(VkDescriptorSetLayoutBinding){0, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 1, VK_SHADER_STAGE_FRAGMENT_BIT, NULL}}, NULL, &r->set_layout));
    VK(vkCreateDescriptorPool(g->device, &(VkDescriptorPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .maxSets = 1, .poolSizeCount = 1,
        .pPoolSizes = &(VkDescriptorPoolSize){VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 1}}, NULL, &r->pool));
    VK(vkAllocateDescriptorSets(g->device, &(VkDescriptorSetAllocateInfo){.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO, .descriptorPool = r->pool, .descriptorSetCount = 1, .pSetLayouts = &r->set_layout}, &r->set));
    vkUpdateDescriptorSets(g->device, 1, &(VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = r->set, .descriptorCount = 1, .descriptorType = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
        .pImageInfo = &(VkDescriptorImageInfo){r->sampler, r->view, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL}}, 0, NULL);
}

static void create_pipelines(struct renderer *r, struct gpu *g)
{
    VK(vkCreatePipelineLayout(g->device, &(VkPipelineLayoutCreateInfo){.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &r->set_layout,
        .pushConstantRangeCount = 1, .pPushConstantRanges = &(VkPushConstantRange){VK_SHADER_STAGE_VERTEX_BIT, 0, 8}}, NULL, &r->layout));
    r->vertex = module(g, quad_vert, sizeof quad_vert);
    r->fragment = module(g, quad_frag, sizeof quad_frag);
    const VkVertexInputAttributeDescription attributes[] = {
        {0, 0, VK_FORMAT_R32G32B32A32_SFLOAT, offsetof(struct quad, x)}, {1, 0, VK_FORMAT_R32G32B32A32_SFLOAT, offsetof(struct quad, radius)}, {2, 0, VK_FORMAT_R32G32B32A32_SFLOAT, offsetof(struct quad, uv)},
        {3, 0, VK_FORMAT_R8G8B8A8_UNORM, offsetof(struct quad, top_colour)}, {4, 0, VK_FORMAT_R8G8B8A8_UNORM, offsetof(struct quad, bottom_colour)}, {5, 0, VK_FORMAT_R32_SFLOAT, offsetof(struct quad, glow)}};
    const VkPipelineVertexInputStateCreateInfo input = {.sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO, .vertexBindingDescriptionCount = 1,
        .pVertexBindingDescriptions = &(VkVertexInputBindingDescription){0, sizeof(struct quad), VK_VERTEX_INPUT_RATE_INSTANCE}, .vertexAttributeDescriptionCount = 6, .pVertexAttributeDescriptions = attributes};
    const VkPipelineInputAssemblyStateCreateInfo assembly = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO, .topology = VK_PRIMITIVE_TOPOLOGY_TRIANGLE_STRIP};
    const VkPipelineViewportStateCreateInfo viewport = {.sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO, .viewportCount = 1, .scissorCount = 1};
    const VkPipelineRasterizationStateCreateInfo raster = {.sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO, .cullMode = VK_CULL_MODE_NONE, .lineWidth = 1};
    const VkPipelineMultisampleStateCreateInfo samples = {.sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO, .rasterizationSamples = VK_SAMPLE_COUNT_1_BIT};
    const VkPipelineColorBlendAttachmentState premultiplied = {.blendEnable = VK_TRUE, .srcColorBlendFactor = VK_BLEND_FACTOR_ONE, .dstColorBlendFactor = VK_BLEND_FACTOR_ONE_MINUS_SRC_ALPHA, .colorBlendOp = VK_BLEND_OP_ADD,
        .srcAlphaBlendFactor = VK_BLEND_FACTOR_ONE, .dstAlphaBlendFactor = VK_BLEND_FACTOR_ONE_MINUS_SRC_ALPHA, .alphaBlendOp = VK_BLEND_OP_ADD, .colorWriteMask = 0xf};
    const VkPipelineColorBlendStateCreateInfo blend = {.sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO, .attachmentCount = 1, .pAttachments = &premultiplied};
    const VkPipelineDynamicStateCreateInfo dynamic = {.sType = VK_STRUCTURE_TYPE_PIPELINE_DYNAMIC_STATE_CREATE_INFO, .dynamicStateCount = 2,
        .pDynamicStates = (const VkDynamicState[]){VK_DYNAMIC_STATE_VIEWPORT, VK_DYNAMIC_STATE_SCISSOR}};
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        const VkSpecializationMapEntry entry = {0, 0, sizeof kind};
        const VkSpecializationInfo constants = {1, &entry, sizeof kind, &kind};
        const VkPipelineShaderStageCreateInfo stages[] = {
            {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .stage = VK_SHADER_STAGE_VERTEX_BIT, .module = r->vertex, .pName = "main", .pSpecializationInfo = &constants},
            {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .stage = VK_SHADER_STAGE_FRAGMENT_BIT, .module = r->fragment, .pName = "main", .pSpecializationInfo = &constants}};
        VK(vkCreateGraphicsPipelines(g->device, g->pipeline_cache, 1, &(VkGraphicsPipelineCreateInfo){.sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO, .stageCount = 2, .pStages = stages,
            .pVertexInputState = &input, .pInputAssemblyState = &assembly, .pViewportState = &viewport, .pRasterizationState = &raster, .pMultisampleState = &samples, .pColorBlendState = &blend,
            .pDynamicState = &dynamic, .layout = r->layout, .renderPass = g->pass}, NULL, &r->pipelines[kind]));
    }
}

void renderer_create(struct renderer *r, struct gpu *g)
{
    *r = (struct renderer){0};
    create_atlas(r, g);
    create_set(r, g);
    create_pipelines(r, g);
}

void renderer_destroy(struct renderer *r, struct gpu *g)
{
    VK(vkDeviceWaitIdle(g->device));
    for (uint32_t i = 0; i < KINDS; i++) vkDestroyPipeline(g->device, r->pipelines[i], NULL);
    vkDestroyPipelineLayout(g->device, r->layout, NULL);
    vkDestroyShaderModule(g->device, r->vertex, NULL);
    vkDestroyShaderModule(g->device, r->fragment, NULL);
    vkDestroyDescriptorPool(g->device, r->pool, NULL);
    vkDestroyDescriptorSetLayout(g->device, r->set_layout, NULL);
    vkDestroySampler(g->device, r->sampler, NULL);
    vkDestroyImageView(g->device, r->view, NULL);
    vkDestroyImage(g->device, r->atlas, NULL);
    vkFreeMemory(g->device, r->memory, NULL);
}

static enum kind kind_of(const struct quad *q) { return q->uv[2] > 0 ? LETTER : q->radius > 0 || q->top != 1 || q->soft > 0 || q->angle != 0 ? SHAPE : PLAIN; }

void renderer_draw(const struct renderer *r, const struct gpu *g, const struct frame *f, const struct canvas *c)
{
    /* the canvas keeps its proportions in a window of others */
    float width = (float)g->size.width, height = (float)g->size.height, scale = width / CANVAS_WIDTH < height / CANVAS_HEIGHT ? width / CANVAS_WIDTH : height / CANVAS_HEIGHT;
    const VkViewport viewport = {(width - CANVAS_WIDTH * scale) / 2, (height - CANVAS_HEIGHT * scale) / 2, CANVAS_WIDTH * scale, CANVAS_HEIGHT * scale, 0, 1};
    const VkRect2D scissor = {{(int32_t)viewport.x, (int32_t)viewport.y}, {(uint32_t)viewport.width, (uint32_t)viewport.height}};
    memcpy(f->map, c->quads, c->n * sizeof *c->quads);
    const float canvas[2] = {CANVAS_WIDTH, CANVAS_HEIGHT};
    vkCmdBindDescriptorSets(f->commands, VK_PIPELINE_BIND_POINT_GRAPHICS, r->layout, 0, 1, &r->set, 0, NULL);
    vkCmdBindVertexBuffers(f->commands, 0, 1, &f->quads, &(VkDeviceSize){0});
    vkCmdPushConstants(f->commands, r->layout, VK_SHADER_STAGE_VERTEX_BIT, 0, sizeof canvas, canvas);
    vkCmdSetViewport(f->commands, 0, 1, &viewport);
    vkCmdSetScissor(f->commands, 0, 1, &scissor);
    for (uint32_t first = 0, end; first < c->n; first = end) {       /* neighbours of a kind in one draw */
        enum kind kind = kind_of(&c->quads[first]);
        for (end = first + 1; end < c->n && kind_of(&c->quads[end]) == kind; end++) {}
        vkCmdBindPipeline(f->commands, VK_PIPELINE_BIND_POINT_GRAPHICS, r->pipelines[kind]);
        vkCmdDraw(f->commands, 4, end - first, 0, first);
    }
}
