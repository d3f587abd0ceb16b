/** Checkpoints and the ONNX folders that are made of them, which are there while the tests of a file run. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { type ExportOptions, exportOnnx } from '../../onnx/export/index.ts'
import {
  type DecoderCheckpoint,
  type DecoderCheckpointOptions,
  type DecoderType,
  writeDecoderCheckpoint,
} from '../../onnx/testing/decoder-checkpoint.ts'

export interface ExportFolders {
  /** Of all exports. */
  readonly root: string
  /** Folders besides, to be removed at the end. */
  readonly folders: string[]
  write(type: DecoderType, options?: DecoderCheckpointOptions): Promise<DecoderCheckpoint>
  exported(checkpoint: { readonly folder: string }, options?: ExportOptions): ReturnType<typeof exportOnnx>
}

export function exportFolders(): ExportFolders {
  const folders: string[] = []
  let [root, count] = ['', 0]
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'kvasir-export-'))
  })
  afterAll(async () => {
    for (const folder of [root, ...folders]) await rm(folder, { recursive: true })
  })
  return {
    get root() {
      return root
    },
    folders,
    async write(type, options = {}) {
      const checkpoint = await writeDecoderCheckpoint(type, options)
      folders.push(checkpoint.folder)
      return checkpoint
    },
    exported: ({ folder }, options = {}) => exportOnnx(folder, join(root, `export-${count++}`), options),
  }
}
