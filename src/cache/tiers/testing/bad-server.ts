/** A TCP server that is no good Redis: what it does with what it is sent is up to the test. */
import { createServer, type Socket } from 'node:net'

export interface BadServer {
  readonly url: string
  /** Connections so far. */
  readonly connections: () => number
  stop(): Promise<void>
}

export async function startBadServer(onConnection: (socket: Socket) => void): Promise<BadServer> {
  const sockets = new Set<Socket>()
  let connections = 0
  const server = createServer((socket) => {
    connections++
    sockets.add(socket)
    socket.on('error', () => undefined)
    onConnection(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  return {
    url: `redis://127.0.0.1:${port}`,
    connections: () => connections,
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
