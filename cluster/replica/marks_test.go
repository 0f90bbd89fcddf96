package replica

import (
	"testing"
	"time"

	"petal/placement"
)

// TestEveryCopyNamesWhoLacksIt: R8. A member is out and another dies, which led
// while it was out: whoever is left knows what the one that comes back lacks,
// though it was not the head that wrote it.
func TestEveryCopyNamesWhoLacksIt(t *testing.T) {
	for name, write := range map[string]func(w *world, c placement.Chunk, data []byte){
		"replicated": func(w *world, c placement.Chunk, data []byte) {
			w.nodes[2].stop(true)
			w.exclude(3)
			w.opened()
			w.ok(w.write(w.nodes[0], c, 4096, data))
		},
		"recovered when the link opened": func(w *world, c placement.Chunk, data []byte) {
			w.nodes[2].stop(true)
			w.exclude(3)
			w.opened()
			w.cut(1, 2)
			w.write(w.nodes[0], c, 4096, data)
			w.run(10 * time.Millisecond)
			w.nodes[0].stop(true)
			w.nodes[0].start()
			w.heal(1, 2)
		},
		"written before the other was out": func(w *world, c placement.Chunk, data []byte) {
			w.cut(1, 2)
			w.cut(1, 3)
			w.write(w.nodes[0], c, 4096, data)
			w.run(10 * time.Millisecond)
			w.nodes[2].stop(true)
			w.exclude(3)
			w.run(10 * time.Millisecond)
			w.heal(1, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 3, placement.Mirror3)
			w.opened()
			c := w.chunkOf(0, 0)
			data := pattern(1, 65536)
			w.ok(w.write(w.nodes[0], c, 0, data))
			w.run(10 * time.Millisecond)
			b := pattern(2, 4096)
			copy(data[4096:], b)
			write(w, c, b)
			w.opened()
			w.nodes[0].stop(true)
			w.exclude(1)
			w.opened()
			w.want(w.nodes[1], c, 0, data)
			w.nodes[2].start()
			w.until("it is let in", 20*time.Second, func() bool { return w.link(link10).config.InSync.Len() == 2 && w.link(link10).filling == 0 })
			w.opened()
			w.want(w.nodes[2], c, 0, data)
		})
	}
}
