/**
 * ONNX messages from bytes and to bytes, driven by `schema.ts`. Byte fields (weights above all) are views of the input,
 * never copies. `onnx-reader.ts` opens files without reading those.
 */
import { type Field, type Message, type MessageName, type OnnxModel, schema } from './schema.ts'
import { type Integer, invalidFile, WireReader, type WireType, WireWriter } from './wire.ts'

/** Deeper nesting than any real model has; keeps hostile input off the stack. */
const maxDepth = 64

const wireTypes: Readonly<Record<string, WireType>> = { int64: 0, double: 1, float: 5 }
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const encoder = new TextEncoder()

interface NumberedField {
  readonly name: string
  readonly kind: string
  readonly repeated: boolean
}

const fieldsByNumber = new Map(
  Object.entries(schema).map(([message, fields]) => [
    message,
    new Map(
      Object.entries(fields).map(([name, field]: [string, Field]) => [
        field[0],
        { name, kind: field[1], repeated: field[2] === 'repeated' } satisfies NumberedField,
      ]),
    ),
  ]),
)

const repeatedNames = new Map(
  [...fieldsByNumber].map(([message, fields]) => [
    message,
    [...fields.values()].filter(({ repeated }) => repeated).map(({ name }) => name),
  ]),
)

/**
 * Decodes a `.onnx` file. The result's byte fields are views of `bytes`.
 * @throws KvasirError `invalid-file` on anything that is not an ONNX model
 */
export function decodeModel(bytes: Uint8Array): OnnxModel {
  const model = decodeMessage('Model', bytes)
  if (!model.graph) throw invalidFile('expected an ONNX model with a graph, got none')
  return model
}

/** Decodes one message of the schema; see `decodeModel`. */
export function decodeMessage<N extends MessageName>(name: N, bytes: Uint8Array): Message<N> {
  return decode(name, bytes, maxDepth) as Message<N>
}

/** The bytes of a model; fields that are undefined or empty arrays are not written. */
export function encodeModel(model: OnnxModel): Uint8Array {
  return encodeMessage('Model', model)
}

export function encodeMessage<N extends MessageName>(name: N, message: Message<N>): Uint8Array {
  return encode(name, message as Readonly<Record<string, unknown>>)
}

/** A message with the given fields; the repeated ones that are left out become empty arrays. */
export function make<N extends MessageName>(name: N, fields: Partial<Message<N>>): Message<N> {
  return { ...emptyMessage(name), ...fields } as Message<N>
}

function emptyMessage(name: MessageName): Record<string, unknown> {
  const message: Record<string, unknown> = {}
  for (const field of repeatedNames.get(name)!) message[field] = []
  return message
}

function decode(name: MessageName, bytes: Uint8Array, depth: number): Record<string, unknown> {
  if (depth === 0) throw invalidFile(`expected messages nested at most ${maxDepth} deep, got more at ${name}`)
  const fields = fieldsByNumber.get(name)!
  const message = emptyMessage(name)
  const reader = new WireReader(bytes)
  while (!reader.done) {
    const { field: number, wireType } = reader.tag()
    const field = fields.get(number)
    if (!field) reader.skip(wireType)
    else decodeField(message, `${name}.${field.name}`, field, reader, wireType, depth)
  }
  return message
}

function decodeField(
  message: Record<string, unknown>,
  path: string,
  field: NumberedField,
  reader: WireReader,
  wireType: WireType,
  depth: number,
): void {
  const expected = wireTypes[field.kind] ?? 2
  if (wireType === 2 && expected !== 2 && field.repeated) {
    const packed = new WireReader(reader.delimited())
    while (!packed.done) (message[field.name] as unknown[]).push(decodeScalar(field.kind, packed))
    return
  }
  if (wireType !== expected) throw invalidFile(`expected wire type ${expected} for ${path}, got ${wireType}`)
  const value = decodeValue(path, field.kind, reader, depth)
  if (field.repeated) (message[field.name] as unknown[]).push(value)
  else message[field.name] = value
}

function decodeValue(path: string, kind: string, reader: WireReader, depth: number): unknown {
  if (kind in wireTypes) return decodeScalar(kind, reader)
  const bytes = reader.delimited()
  if (kind === 'bytes') return bytes
  if (kind !== 'string') return decode(kind as MessageName, bytes, depth - 1)
  try {
    return decoder.decode(bytes)
  } catch (cause) {
    throw invalidFile(`expected UTF-8 for ${path}, got other bytes`, { cause })
  }
}

function decodeScalar(kind: string, reader: WireReader): Integer {
  return kind === 'float' ? reader.float() : kind === 'double' ? reader.double() : reader.int64()
}

function encode(name: MessageName, message: Readonly<Record<string, unknown>>): Uint8Array {
  const writer = new WireWriter()
  for (const [number, field] of fieldsByNumber.get(name)!) {
    const value = message[field.name]
    if (value === undefined) continue
    const wireType = wireTypes[field.kind] ?? 2
    for (const item of field.repeated ? (value as unknown[]) : [value]) {
      writer.tag(number, wireType)
      encodeValue(writer, field.kind, item)
    }
  }
  return writer.finish()
}

function encodeValue(writer: WireWriter, kind: string, value: unknown): void {
  if (kind === 'int64') writer.varint(value as Integer)
  else if (kind === 'float') writer.float(value as number)
  else if (kind === 'double') writer.double(value as number)
  else if (kind === 'string') writer.delimited(encoder.encode(value as string))
  else if (kind === 'bytes') writer.delimited(value as Uint8Array)
  else writer.delimited(encode(kind as MessageName, value as Readonly<Record<string, unknown>>))
}
