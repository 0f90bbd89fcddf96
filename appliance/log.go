package appliance

import (
	"io"
	"log/slog"

	"petal/appliance/config"
)

// newLog returns the node's log: one line an event, on w.
func newLog(conf config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: conf.Level}
	if conf.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
