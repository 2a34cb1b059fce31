// kafkajs as a child process: one JSON command a line on stdin, one JSON answer a line on stdout.
// Keys, values and header values travel as base64; null stays null.
'use strict'

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@bokuweb/zstd-wasm')
const readline = require('readline')

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})
const codecs = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}
const members = new Map()

const bytes = text => (text === null || text === undefined ? null : Buffer.from(text, 'base64'))
const text = buffer => (buffer === null || buffer === undefined ? null : Buffer.from(buffer).toString('base64'))
const client = command => new Kafka({
  brokers: [command.bootstrap], clientId: 'kafkajs', logLevel: process.env.KAFKAJS_LOG ? logLevel.DEBUG : logLevel.NOTHING,
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 20 },
})

function plainRecord ({ topic, partition, message }) {
  const headers = []
  for (const [name, values] of Object.entries(message.headers || {})) {
    for (const value of Array.isArray(values) ? values : [values]) headers.push([name, text(value)])
  }
  return {
    topic, partition, offset: Number(message.offset), key: text(message.key), value: text(message.value),
    headers, timestamp: Number(message.timestamp),
  }
}

async function produce (command) {
  const producer = client(command).producer({ idempotent: false, allowAutoTopicCreation: true, ...command.config })
  await producer.connect()
  try {
    const messages = command.records.map(record => {
      const headers = {}
      for (const [name, value] of record.headers || []) (headers[name] = headers[name] || []).push(bytes(value))
      return {
        key: bytes(record.key), value: bytes(record.value), headers, partition: command.partition ?? undefined,
        timestamp: record.timestamp == null ? undefined : String(record.timestamp),
      }
    })
    const acks = command.config && command.config.acks !== undefined ? command.config.acks : -1
    const sent = await producer.send({ topic: command.topic, acks, compression: codecs[command.codec], messages })
    // one base offset a partition is all that kafkajs tells
    const base = sent.length === 1 ? Number(sent[0].baseOffset) : -1
    return messages.map((_, index) => ({ offset: base < 0 ? -1 : base + index, partition: sent.length === 1 ? sent[0].partition : -1 }))
  } finally {
    await producer.disconnect()
  }
}

/** kafkajs reads in groups only: a group of its own, made for this reading. */
async function consume (command) {
  const consumer = client(command).consumer({
    groupId: `kafkajs-${process.pid}-${process.hrtime.bigint()}`, maxWaitTimeInMs: 100, sessionTimeout: 10000, heartbeatInterval: 1000,
  })
  const got = {}
  let missing = 0
  for (const [topic, count] of Object.entries(command.topics)) { got[topic] = []; missing += count }
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: Object.keys(command.topics), fromBeginning: true })
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, 1000 * (command.timeout || 30))
      consumer.on(consumer.events.CRASH, event => { clearTimeout(timer); reject(event.payload.error) })
      consumer.run({
        eachMessage: async delivery => {
          if (delivery.partition !== (command.partition || 0)) return
          got[delivery.topic].push(plainRecord(delivery))
          if (--missing === 0) { clearTimeout(timer); resolve() }
        },
      }).catch(reject)
    })
  } finally {
    await consumer.disconnect()
  }
  return got
}

async function join (command) {
  const consumer = client(command).consumer({
    groupId: command.group, maxWaitTimeInMs: 100, sessionTimeout: 10000, heartbeatInterval: 500, rebalanceTimeout: 10000, ...command.config,
  })
  const member = { consumer, assignment: [], records: [], events: [], error: null, member_id: '', generation: -1 }
  members.set(command.member, member)
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.member_id = payload.memberId
    member.assignment = Object.entries(payload.memberAssignment).flatMap(([topic, parts]) => parts.map(part => `${topic}-${part}`)).sort()
    member.events.push(['assigned', member.assignment])
  })
  consumer.on(consumer.events.REBALANCING, () => member.events.push(['revoked', member.assignment]))
  consumer.on(consumer.events.CRASH, event => { if (!event.payload.restart) member.error = String(event.payload.error) })
  await consumer.connect()
  await consumer.subscribe({ topics: command.topics, fromBeginning: true })
  await consumer.run({ eachMessage: async delivery => { member.records.push(plainRecord(delivery)) } })
  return true
}

function state (member) {
  const { assignment, records, events, error, member_id, generation } = member
  return { assignment, records, events, error, member_id, generation }
}

async function leave (command) {
  const member = members.get(command.member)
  members.delete(command.member)
  await member.consumer.disconnect()
  return state(member)
}

const commands = { produce, consume, join, leave, state: async command => state(members.get(command.member)) }

async function main () {
  await zstd.init()
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    let answer
    try {
      answer = { ok: await commands[command.do](command) }
    } catch (error) {
      answer = { error: error.name, message: String(error.message), type: error.type }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}

main()
