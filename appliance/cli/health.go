package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"petal/appliance/api"
)

// healthWord is a disk's health in one cell of a table.
func healthWord(h api.Health) string {
	if h.State == "unavailable" {
		return fmt.Sprintf("UNAVAILABLE, %d %% served", h.Served)
	}
	return h.State
}

// showHealth says why a disk is not well, what mends it, and what could still
// go wrong.
func showHealth(w io.Writer, disk string, h api.Health) {
	since := ""
	if h.Since != nil {
		since = fmt.Sprintf(" since %s (%s)", h.Since.Local().Format(time.DateTime), ago(*h.Since))
	}
	fmt.Fprintf(w, "disk %s: %s%s\n", disk, healthWord(h), since)
	for _, x := range h.Why {
		fmt.Fprintf(w, "  why   %s\n", x)
	}
	for _, x := range h.Fix {
		fmt.Fprintf(w, "  fix   %s\n", x)
	}
	for _, r := range h.Risks {
		fmt.Fprintf(w, "  risk  %s\n", riskText(r))
	}
}

func riskText(r api.Risk) string {
	switch s := fmt.Sprintf("if %s fails too, ", r.Node); {
	case r.Majority && r.Lost:
		return s + "nothing is served, since no majority of the voters is left, and a part of it is lost if it never comes back"
	case r.Majority:
		return s + "nothing is served, since no majority of the voters is left"
	case r.Lost:
		return s + fmt.Sprintf("%d %% of it is not served, and lost if it never comes back", r.Percent)
	default:
		return s + fmt.Sprintf("%d %% of it is not served", r.Percent)
	}
}

// showResync draws a bar for each copy that catches up.
func showResync(w io.Writer, list []api.Resync) {
	rows := make([][]string, len(list))
	for i, r := range list {
		left := "-"
		if r.Seconds > 0 {
			left = (time.Duration(r.Seconds) * time.Second).String()
		}
		rows[i] = []string{r.Link, bar(r.Copied, r.Copied+r.Left), size(r.Copied), size(r.Left), size(uint64(r.Rate)) + "/s", left}
	}
	columns(w, []string{"catching up", "", ">copied", ">left", ">rate", ">time"}, rows)
}

const barWidth = 20

func bar(done, all uint64) string {
	n := barWidth
	if all > 0 {
		n = int(float64(done) / float64(all) * barWidth)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", barWidth-n) + "]"
}
