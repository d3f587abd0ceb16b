/** Attributes of nodes, by name. */
import type { OnnxNode } from '../schema.ts'

/** An integer attribute. */
export function intAttribute(node: OnnxNode, name: string): number | undefined {
  const value = node.attribute.find((attribute) => attribute.name === name)?.i
  return value === undefined ? undefined : Number(value)
}

export function intsAttribute(node: OnnxNode, name: string): readonly number[] | undefined {
  return node.attribute.find((attribute) => attribute.name === name)?.ints.map(Number)
}

export function floatAttribute(node: OnnxNode, name: string): number | undefined {
  return node.attribute.find((attribute) => attribute.name === name)?.f
}

export function textAttribute(node: OnnxNode, name: string): string | undefined {
  const bytes = node.attribute.find((attribute) => attribute.name === name)?.s
  return bytes && new TextDecoder().decode(bytes)
}
