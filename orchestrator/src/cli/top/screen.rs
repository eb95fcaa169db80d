//! The terminal while `sweep top` has it: taken, given back, whatever happens in between.

use std::io::{self, Stdout, Write};
use std::sync::{Mutex, Once, PoisonError};

use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::{clear, cursor, screen};

/// Modes of the terminal before it was taken; nothing while it is not ours.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode, on its other screen. Dropped, and after a panic of any thread, it is as it was.
pub(super) struct Screen {
    /// To draw on.
    pub(super) terminal: Terminal<TermionBackend<Stdout>>,
}

impl Screen {
    pub(super) fn take() -> io::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let say = std::panic::take_hook();
            // First of all, so that what is said can be read.
            std::panic::set_hook(Box::new(move |panic| {
                let _ = give_back();
                say(panic);
            }));
        });
        Ok(Screen { terminal: take()? })
    }

    /// Gives the terminal back and stops this process, as Ctrl-Z does in other programs; returns when it goes on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back()?;
        raise(Signal::SIGSTOP)?;
        self.take_again()
    }

    /// After others had the terminal.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        give_back()?;
        self.terminal = take()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = give_back();
    }
}

fn take() -> io::Result<Terminal<TermionBackend<Stdout>>> {
    let modes = tcgetattr(io::stdin())?;
    let mut raw = modes.clone();
    cfmakeraw(&mut raw);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(modes);
    let open = || {
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        // Not `Terminal::clear`, which asks where the cursor is: the keyboard's thread would take the answer.
        write!(io::stdout(), "{}{}", screen::ToAlternateScreen, clear::All)?;
        Terminal::new(TermionBackend::new(io::stdout()))
    };
    let taken = open();
    if taken.is_err() {
        give_back()?;
    }
    taken
}

/// Puts everything back as it was before; once.
fn give_back() -> io::Result<()> {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = before else { return Ok(()) };
    let mut stdout = io::stdout();
    let shown = write!(stdout, "{}{}", cursor::Show, screen::ToMainScreen).and_then(|()| stdout.flush());
    tcsetattr(io::stdin(), SetArg::TCSANOW, &before)?;
    shown
}
