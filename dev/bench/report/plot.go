package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Plot shows lines over an axis. Both axes name their units.
type Plot struct {
	Name       string // of its file
	Title      string
	X, Y       string
	LogX, LogY bool
	Lines      []Line
}

// Line is a line of a plot.
type Line struct {
	Name   string
	Points plotter.XYs
}

func (l *Line) add(x, y float64) { l.Points = append(l.Points, plotter.XY{X: x, Y: y}) }

// colors that most people can tell apart, on paper too.
var colors = []color.RGBA{{0x00, 0x5f, 0xaf, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x8f, 0x65, 0xff}, {0x88, 0x44, 0x99, 0xff}}

func (p *Plot) svg() ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	d := plot.New()
	d.BackgroundColor = color.White
	d.Title.Text, d.X.Label.Text, d.Y.Label.Text = p.Title, p.X, p.Y
	d.Title.Padding, d.X.Label.Padding, d.Y.Label.Padding = 6, 4, 4
	d.Legend.Top, d.Legend.Left, d.Legend.Padding = true, true, 2
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	d.Add(grid)
	for i, l := range p.Lines {
		points := make(plotter.XYs, len(l.Points))
		for j, at := range l.Points {
			points[j] = plotter.XY{X: onScale(at.X, p.LogX), Y: onScale(at.Y, p.LogY)}
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, fmt.Errorf("plot %s: %w", p.Name, err)
		}
		line.Color, line.Width = colors[i%len(colors)], vg.Points(1.5)
		marks.Color, marks.Shape, marks.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2)
		d.Add(line, marks)
		d.Legend.Add(l.Name, line, marks)
	}
	const legendLine = 0.12 // of the height, above the lines
	room := legendLine * float64(len(p.Lines))
	if p.LogY {
		d.Y.Max *= math.Pow(d.Y.Max/d.Y.Min, room)
	} else {
		d.Y.Min, d.Y.Max = min(0, d.Y.Min), d.Y.Max*(1+room)
	}
	scale(&d.X, p.LogX)
	scale(&d.Y, p.LogY)
	canvas := vgsvg.New(5.4*vg.Inch, 3.4*vg.Inch)
	d.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("plot %s: %w", p.Name, err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

// onScale keeps numbers without a logarithm at the lower edge.
func onScale(v float64, log bool) float64 {
	if log {
		return max(v, 1e-2)
	}
	return v
}

// scale sets up an axis with labels in plain numbers.
func scale(a *plot.Axis, log bool) {
	if a.Max <= a.Min {
		a.Max = a.Min + 1
	}
	var ticks plot.Ticker = plot.DefaultTicks{}
	if log {
		a.Scale = plot.LogScale{}
		ticks = plot.LogTicks{Prec: -1}
	}
	a.Tick.Marker = plot.TickerFunc(func(lowest, highest float64) []plot.Tick {
		marks := ticks.Ticks(lowest, highest)
		for i := range marks {
			if v := marks[i].Value; marks[i].Label != "" && v >= 1000 {
				marks[i].Label = count(v)
			} else if marks[i].Label != "" {
				marks[i].Label = fmt.Sprintf("%.4g", v)
			}
		}
		return marks
	})
}
