// Browsers do not start workers for pages that are opened from a disk. There, the search worker runs in a hidden frame.
// Messages are copied, as they are for a real worker: the search worker changes the query that it receives.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    onmessage = null
    onerror = null
    #frame = document.createElement("iframe")
    #waiting = []

    constructor(url) {
      super()
      this.#frame.hidden = true
      document.documentElement.append(this.#frame)
      const inside = this.#frame.contentWindow
      inside.postMessage = message => {
        const data = structuredClone(message)
        setTimeout(() => this.onmessage?.(new MessageEvent("message", { data })))
      }
      const script = inside.document.createElement("script")
      script.src = new URL(url, document.baseURI)
      script.onerror = event => this.onerror?.(event)
      script.onload = () => {
        const waiting = this.#waiting
        this.#waiting = null
        waiting.forEach(data => this.#deliver(data))
      }
      inside.document.documentElement.append(script)
    }

    postMessage(message) {
      const data = structuredClone(message)
      if (this.#waiting) {
        this.#waiting.push(data)
      } else {
        this.#deliver(data)
      }
    }

    #deliver(data) {
      const inside = this.#frame.contentWindow
      setTimeout(() => inside?.onmessage?.(new inside.MessageEvent("message", { data })))
    }

    terminate() {
      this.#frame.remove()
    }
  }
}
