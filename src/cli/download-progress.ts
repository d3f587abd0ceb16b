/** A bar while files of a model are downloaded; nothing when they are there already. */
import type { DownloadProgress } from '../runtime/contract.ts'
import type { Progress, ProgressOptions } from './progress.ts'

export interface DownloadBar {
  readonly onDownload: (progress: DownloadProgress) => void
  end(): void
}

const bytesPerMb = 1e6

/** `start` begins a bar: `terminal.progress`, say. */
export function createDownloadBar(start: (options: ProgressOptions) => Progress): DownloadBar {
  let bar: Progress | undefined
  let shown = 0
  const inMb = (bytes: number): number => Math.ceil(bytes / bytesPerMb)
  return {
    onDownload({ file, fileBytes, fileSize, bytes, size }) {
      if (!bar && fileBytes === fileSize) return
      // The settings come first, by themselves: only then is it known what else is needed.
      if (shown !== size) bar?.end()
      if (!bar || shown !== size) bar = start({ title: 'Downloading', total: inMb(size), unit: 'MB' })
      shown = size
      bar.update(inMb(bytes), file)
    },
    end() {
      bar?.end()
      bar = undefined
    },
  }
}
