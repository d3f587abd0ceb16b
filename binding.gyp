{
  "variables": {
    "kernel_cflags": ["-std=c++17", "-O3", "-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-Wall", "-Wno-maybe-uninitialized", "-Wno-uninitialized"],
    "avx512_cflags": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]
  },
  "target_defaults": { "include_dirs": ["native/include", "native/src"], "cflags!": ["-O2"], "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"] },
  "targets": [
    {
      "target_name": "kernels_vec4",
      "type": "static_library",
      "sources": ["native/src/kernels_vec4.cc", "native/src/retain.cc", "native/src/select.cc"],
      "cflags_cc": ["<@(kernel_cflags)", "-ffp-contract=fast"],
      "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(kernel_cflags)", "-ffp-contract=fast"] }
    },
    {
      "target_name": "kvasir",
      "sources": ["native/bindings/node.cc"],
      "dependencies": ["kernels_vec4"],
      "defines": ["NAPI_VERSION=8"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags_cc": ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-cast-function-type"],
      "libraries": ["-lpthread"],
      "xcode_settings": { "GCC_ENABLE_CPP_EXCEPTIONS": "YES", "OTHER_CPLUSPLUSFLAGS": ["-std=c++17", "-O2"] },
      "conditions": [["target_arch=='x64'", { "dependencies": ["kernels_avx2", "kernels_avx512", "kernels_avx512vnni", "kernels_avx512bf16", "kernels_amx"], "defines": ["KVASIR_X64"] }]]
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "kernels_avx2",
          "type": "static_library",
          "sources": ["native/src/kernels_avx2.cc"],
          "cflags_cc": ["<@(kernel_cflags)", "-mavx2", "-mfma", "-mf16c"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(kernel_cflags)", "-mavx2", "-mfma", "-mf16c"] }
        },
        {
          "target_name": "kernels_avx512vnni",
          "type": "static_library",
          "sources": ["native/src/kernels_avx512vnni.cc"],
          "cflags_cc": ["<@(kernel_cflags)", "<@(avx512_cflags)", "-mavx512vnni"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(kernel_cflags)", "<@(avx512_cflags)", "-mavx512vnni"] }
        },
        {
          "target_name": "kernels_avx512bf16",
          "type": "static_library",
          "sources": ["native/src/kernels_avx512bf16.cc"],
          "cflags_cc": ["<@(kernel_cflags)", "<@(avx512_cflags)", "-mavx512vnni", "-mavx512bf16"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(kernel_cflags)", "<@(avx512_cflags)", "-mavx512vnni", "-mavx512bf16"] }
        },
        {
          "target_name": "kernels_amx",
          "type": "static_library",
          "sources": ["native/src/kernels_amx.cc"],
          "cflags_cc": ["<@(kernel_cflags)", "<@(avx512_cflags)", "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(kernel_cflags)", "<@(avx512_cflags)", "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"] }
        },
        {
          "target_name": "kernels_avx512",
          "type": "static_library",
          "sources": ["native/src/kernels_avx512.cc"],
          "cflags_cc": ["<@(kernel_cflags)", "<@(avx512_cflags)"],
          "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["<@(kernel_cflags)", "<@(avx512_cflags)"] }
        }
      ]
    }]
  ]
}
