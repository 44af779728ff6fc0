package loadtest

import (
	"fmt"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Plot is lines over an axis, both axes with their units.
type Plot struct {
	Name       string // of its file
	Title      string
	X, Y       string
	LogX, LogY bool
	Lines      []Line
}

// Line is one of a plot.
type Line struct {
	Name string
	X, Y []float64
}

// colours that are told apart by most people, on paper too.
var colours = []color.RGBA{
	{0x00, 0x5f, 0xaf, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x8f, 0x65, 0xff}, {0x88, 0x44, 0x99, 0xff}, {0x66, 0x66, 0x66, 0xff}, {0xb0, 0x80, 0x00, 0xff},
}

// SVG draws the plot.
func (p *Plot) SVG() (string, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	d := plot.New()
	d.BackgroundColor = color.White
	d.Title.Text, d.X.Label.Text, d.Y.Label.Text = p.Title, p.X, p.Y
	d.Title.Padding, d.X.Label.Padding, d.Y.Label.Padding = 6, 4, 4
	d.Legend.Top, d.Legend.Left, d.Legend.Padding = true, true, 2
	d.X.Tick.Marker, d.Y.Tick.Marker = ticksOf(p.LogX), ticksOf(p.LogY)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	d.Add(grid)
	for i, l := range p.Lines {
		points := make(plotter.XYs, len(l.X))
		for j := range l.X {
			points[j] = plotter.XY{X: onScale(l.X[j], p.LogX), Y: onScale(l.Y[j], p.LogY)}
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return "", fmt.Errorf("plot %s: %w", p.Name, err)
		}
		c := colours[i%len(colours)]
		line.Color, line.Width = c, vg.Points(1.5)
		marks.Color, marks.Shape, marks.Radius = c, draw.CircleGlyph{}, vg.Points(2)
		d.Add(line, marks)
		d.Legend.Add(l.Name, line, marks)
	}
	if p.LogX {
		d.X.Scale = plot.LogScale{}
	}
	if p.LogY { // with room for the legend above the lines
		d.Y.Scale = plot.LogScale{}
		d.Y.Max *= math.Pow(d.Y.Max/d.Y.Min, 0.12*float64(len(p.Lines)))
	} else {
		d.Y.Min = min(0, d.Y.Min)
		d.Y.Max *= 1 + 0.12*float64(len(p.Lines))
	}
	if d.Y.Max <= d.Y.Min {
		d.Y.Max = d.Y.Min + 1
	}
	if d.X.Max <= d.X.Min {
		d.X.Max = d.X.Min + 1
	}
	canvas := vgsvg.New(5.4*vg.Inch, 3.4*vg.Inch)
	d.Draw(draw.New(canvas))
	var b strings.Builder
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", fmt.Errorf("plot %s: %w", p.Name, err)
	}
	return strings.ReplaceAll(b.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;"), nil
}

// onScale keeps what has no logarithm at the lower edge.
func onScale(v float64, log bool) float64 {
	if log {
		return max(v, 1e-2)
	}
	return v
}

// ticksOf marks an axis, with labels in plain numbers.
func ticksOf(log bool) plot.Ticker {
	if log {
		return plot.TickerFunc(logTicks)
	}
	return plot.TickerFunc(func(lowest, highest float64) []plot.Tick {
		marks := plot.DefaultTicks{}.Ticks(lowest, highest)
		for i := range marks {
			if marks[i].Label != "" {
				marks[i].Label = plain(marks[i].Value)
			}
		}
		return marks
	})
}

// logTicks marks each decade in nine, and labels its beginning, and in a short axis 2 and 5 too.
func logTicks(lowest, highest float64) (marks []plot.Tick) {
	short := highest/lowest < 2000
	for decade := math.Pow(10, math.Floor(math.Log10(lowest))); decade <= highest; decade *= 10 {
		for i := 1.0; i < 10; i++ {
			mark := plot.Tick{Value: i * decade}
			if i == 1 || short && (i == 2 || i == 5) {
				mark.Label = plain(mark.Value)
			}
			if mark.Value >= lowest*0.999 && mark.Value <= highest*1.001 {
				marks = append(marks, mark)
			}
		}
	}
	return marks
}

func plain(v float64) string {
	if v >= 1000 {
		return count(v)
	}
	return fmt.Sprintf("%.4g", v)
}
