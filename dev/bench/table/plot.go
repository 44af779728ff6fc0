package table

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// Plot draws columns of a table over its first column.
type Plot struct {
	Name    string `json:"name"`    // of its file
	Columns []int  `json:"columns"` // of numbers
	Y       string `json:"y"`       // label of the axis
	LogX    bool   `json:"log_x,omitempty"`
	LogY    bool   `json:"log_y,omitempty"`
	Only    bool   `json:"only,omitempty"` // the docs have the plot, and not the rows
}

// svg draws the plot of the table.
func (t *Table) svg() ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p, d := t.Plot, plot.New()
	d.BackgroundColor = color.White
	d.Title.Text, d.X.Label.Text, d.Y.Label.Text = t.Title, t.Head[0], p.Y
	d.Legend.Top, d.Legend.Left = true, true
	d.Add(plotter.NewGrid())
	var lines []any
	for _, column := range p.Columns {
		points := make(plotter.XYs, len(t.Rows))
		for i, row := range t.Rows {
			points[i] = plotter.XY{X: number(row[0], p.LogX), Y: number(row[column], p.LogY)}
		}
		lines = append(lines, t.Head[column], points)
	}
	if err := plotutil.AddLinePoints(d, lines...); err != nil {
		return nil, fmt.Errorf("plot %s: %w", p.Name, err)
	}
	room := 0.12 * float64(len(p.Columns)) // of the height, for the legend above the lines
	if p.LogY {
		d.Y.Max *= math.Pow(d.Y.Max/d.Y.Min, room)
	} else {
		d.Y.Min, d.Y.Max = 0, d.Y.Max*(1+room)
	}
	scale(&d.X, p.LogX)
	scale(&d.Y, p.LogY)
	canvas, err := d.WriterTo(5.4*vg.Inch, 3.4*vg.Inch, "svg")
	if err != nil {
		return nil, fmt.Errorf("plot %s: %w", p.Name, err)
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("plot %s: %w", p.Name, err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

// number is that of a cell. Numbers without a logarithm are at the lower edge.
func number(cell any, log bool) float64 {
	n, _ := strconv.ParseFloat(fmt.Sprint(cell), 64)
	if log {
		return max(n, 1e-2)
	}
	return n
}

func scale(a *plot.Axis, log bool) {
	if a.Max <= a.Min {
		a.Max = a.Min + 1
	}
	if log {
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
}
