// Browsers start no workers for pages that are read from a disk. There, the worker of the search runs in a hidden frame.
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
      inside.postMessage = data => setTimeout(() => this.onmessage?.(new MessageEvent("message", { data })))
      const script = inside.document.createElement("script")
      script.src = new URL(url, document.baseURI)
      script.onerror = event => this.onerror?.(event)
      script.onload = () => {
        const waiting = this.#waiting
        this.#waiting = null
        waiting.forEach(data => this.postMessage(data))
      }
      inside.document.documentElement.append(script)
    }

    postMessage(data) {
      if (this.#waiting) {
        this.#waiting.push(data)
      } else {
        const inside = this.#frame.contentWindow
        setTimeout(() => inside?.onmessage?.(new inside.MessageEvent("message", { data })))
      }
    }

    terminate() {
      this.#frame.remove()
    }
  }
}
