//! Horizontal bars, written by hand: no script, no font, readable on light and on dark pages.

use std::fmt::Write as _;

use super::number::short;
use crate::contender::{BARE, PLOYZD_EPOLL, PLOYZD_URING};
use crate::record::Spread;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 120.0;
/// Room for the value behind the longest bar.
const RIGHT: f64 = 90.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const TITLE: f64 = 44.0;
const GROUP_TITLE: f64 = 28.0;
const FOOT: f64 = 30.0;

pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) footnote: &'a str,
    pub(crate) groups: Vec<Group>,
}

/// Bars that share a scale.
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) spread: Spread,
}

impl Chart<'_> {
    pub(crate) fn render(&self) -> String {
        let height = TITLE + self.groups.iter().map(Group::height).sum::<f64>() + FOOT;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2933\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"16\" y=\"26\" font-size=\"17\" font-weight=\"600\">{}</text>\n",
            escaped(self.title)
        );
        let mut top = TITLE;
        for group in &self.groups {
            group.render(&mut svg, top);
            top += group.height();
        }
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{}\" font-size=\"10\" fill=\"#66788a\">{}</text>\n</svg>",
            height - 12.0,
            escaped(self.footnote)
        );
        svg
    }
}

impl Group {
    fn height(&self) -> f64 {
        GROUP_TITLE + STEP * self.bars.len() as f64 + 8.0
    }

    fn render(&self, svg: &mut String, top: f64) {
        let title = escaped(&self.title);
        let baseline = top + 18.0;
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{baseline}\" font-weight=\"600\">{title}</text>"
        );
        let largest = self.scale();
        for (bar, position) in self.bars.iter().zip(0_u32..) {
            bar.render(svg, top + GROUP_TITLE + STEP * f64::from(position), largest);
        }
    }

    /// The value of the longest bar. Bare veth can be several times any tunnel: then it sets no
    /// scale, and its bar is cut off.
    fn scale(&self) -> f64 {
        let largest = |bare: bool| {
            let bars = self.bars.iter().filter(|bar| (bar.name == BARE) == bare);
            bars.map(|bar| bar.spread.max).fold(0.0, f64::max)
        };
        let (bare, tunnels) = (largest(true), largest(false));
        let fits = tunnels == 0.0 || bare < 2.0 * tunnels;
        if fits {
            bare.max(tunnels).max(f64::MIN_POSITIVE)
        } else {
            tunnels
        }
    }
}

impl Bar {
    fn render(&self, svg: &mut String, top: f64, largest: f64) {
        let scale = (WIDTH - LEFT - RIGHT) / largest;
        let length = |value: f64| (value * scale).clamp(1.0, WIDTH - LEFT - RIGHT);
        let end = LEFT + length(self.spread.median);
        let middle = top + BAR / 2.0;
        let text = top + 12.5;
        let name = escaped(&self.name);
        let cut = if self.spread.median > largest {
            "\u{2192} "
        } else {
            ""
        };
        let value = short(self.spread.median);
        let width = length(self.spread.median);
        let color = color(&self.name);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0
        );
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{color}\"/>"
        );
        let (low, high) = (
            LEFT + length(self.spread.min),
            LEFT + length(self.spread.max),
        );
        if high - low > 1.0 {
            let _ = writeln!(
                svg,
                "<path d=\"M{low:.1} {middle} H{high:.1}\" stroke=\"#1f2933\" stroke-width=\"1.5\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{text}\">{cut}{value}</text>",
            end.max(high) + 6.0
        );
    }
}

fn color(name: &str) -> &'static str {
    match name {
        PLOYZD_URING => "#0b7a5c",
        PLOYZD_EPOLL => "#63b89d",
        BARE => "#d5dbe1",
        _ => "#8a9bad",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_beyond_the_scale_is_cut_off_and_says_so() {
        let bar = |name: &str, value| Bar {
            name: name.into(),
            spread: Spread {
                median: value,
                min: value,
                max: value,
            },
        };
        let bars = vec![bar(BARE, 40.0), bar(PLOYZD_URING, 5.0)];
        let groups = vec![Group {
            title: "a < b".into(),
            bars,
        }];
        let svg = Chart {
            title: "t",
            footnote: "f",
            groups,
        }
        .render();
        assert!(svg.contains("\u{2192} 40"), "{svg}");
        assert!(svg.contains("a &lt; b"));
        assert_eq!(svg.matches("width=\"550.0\"").count(), 2);
    }
}
