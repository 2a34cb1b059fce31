// mqtt.js as a child process: one JSON command a line on stdin, one JSON answer a line on stdout. Payloads travel as base64.
'use strict'

const mqtt = require('mqtt')
const readline = require('readline')

const clients = new Map()

function connect ({ name, url, version, id, clean, expiry, will }) {
  const options = {
    clientId: id, clean, protocolVersion: version, reconnectPeriod: 0, connectTimeout: 10000,
    will: will && { topic: will.topic, payload: Buffer.from(will.payload, 'base64'), qos: will.qos, retain: will.retain },
    properties: version === 5 ? { sessionExpiryInterval: expiry } : undefined,
  }
  return new Promise((resolve, reject) => {
    const client = mqtt.connect(url, options)
    const held = { client, messages: [], waiting: null }
    client.on('message', (topic, payload, packet) => {
      held.messages.push([topic, payload.toString('base64'), packet.qos, packet.retain])
      if (held.waiting) held.waiting()
    })
    client.on('connect', connack => { clients.set(name, held); resolve({ present: connack.sessionPresent }) })
    client.on('error', reject)
  })
}

function messages ({ name, count, seconds }) {
  const held = clients.get(name)
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      held.waiting = null
      reject(new Error(`${held.messages.length} of ${count} messages in time`))
    }, seconds * 1000)
    held.waiting = () => {
      if (held.messages.length < count) return
      clearTimeout(late)
      held.waiting = null
      resolve(held.messages.splice(0, count))
    }
    held.waiting()
  })
}

// A few at a time: a broker may allow no more in flight.
async function publish ({ name, topic, payloads, qos, retain }) {
  const { client } = clients.get(name)
  for (let at = 0; at < payloads.length; at += 10) {
    const some = payloads.slice(at, at + 10)
    await Promise.all(some.map(payload => client.publishAsync(topic, Buffer.from(payload, 'base64'), { qos, retain })))
  }
  return payloads.length
}

function inTime (what, promise) {
  let late
  const end = new Promise((resolve, reject) => { late = setTimeout(() => reject(new Error(`${what} not in time`)), 25000) })
  return Promise.race([promise, end]).finally(() => clearTimeout(late))
}

const commands = {
  connect,
  messages,
  drain: ({ name }) => clients.get(name).messages.splice(0),
  subscribe: ({ name, filter, qos }) => clients.get(name).client.subscribeAsync(filter, { qos }),
  unsubscribe: ({ name, filter }) => clients.get(name).client.unsubscribeAsync(filter),
  publish,
  end: ({ name }) => clients.get(name).client.endAsync(),
  kill: ({ name }) => { clients.get(name).client.stream.destroy() },
}

readline.createInterface({ input: process.stdin }).on('line', async line => {
  const command = JSON.parse(line)
  let answer
  try {
    answer = { ok: (await inTime(command.do, Promise.resolve(commands[command.do](command)))) ?? null }
  } catch (error) {
    answer = { error: String(error) }
  }
  process.stdout.write(JSON.stringify({ id: command.id, ...answer }) + '\n')
})
