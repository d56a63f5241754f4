//! Paginated lists as streams.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::de::DeserializeOwned;

use super::error::ForgeError;
use super::transport::{Answer, Ask};

/// Items that are requested on a page; the first is the most that a forge gives by default. If an answer is too
/// large to read, the next smaller size is used. Each size divides the one before, so that a page always begins
/// where the last one ended.
const PAGE_SIZES: [u64; 4] = [50, 25, 5, 1];

/// Number of pages after which a list counts as endless.
const PAGES_MAX: usize = 20_000;

/// Whether `X-Total-Count` can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// It counts the whole list: once that many items have come, no further page is requested.
    OfTheList,
    /// It counts only this page (in the timeline): the list ends with an empty page.
    OfThePage,
}

/// Sends the request for a page. It also handles moved repositories and missing issues.
pub(super) type Sender = Arc<dyn Fn(Ask) -> BoxFuture<'static, Result<Answer, ForgeError>> + Send + Sync>;

/// All items of a list, page by page, in the forge's order. The stream ends at the first error.
///
/// A list can shift between two pages: an item may come twice, and one may be missing if another was deleted
/// meanwhile. Callers must cope with both.
pub(super) fn pages<T>(send: Sender, path: String, total: Total) -> BoxStream<'static, Result<T, ForgeError>>
where
    T: DeserializeOwned + Send + 'static,
{
    let glue = if path.contains('?') { '&' } else { '?' };
    Box::pin(async_stream::try_stream! {
        let mut at: u64 = 0;
        let mut sizes = PAGE_SIZES.iter().copied().peekable();
        let mut previous = Vec::new();
        for _ in 0..PAGES_MAX {
            let size = *sizes.peek().unwrap_or(&1);
            let answer = match send(Ask::get(format!("{path}{glue}page={}&limit={size}", at / size + 1))).await {
                Err(error @ ForgeError::TooLarge { .. }) => {
                    if size > 1 {
                        sizes.next();
                    } else {
                        tracing::warn!(%error, "one item of a list is too large to be read: passed over");
                        at += 1;
                    }
                    continue;
                }
                other => other?,
            };
            let items: Vec<T> = answer.list()?;
            // A server (or proxy) that ignores `page` would otherwise be read for ever.
            if at > 0 && !items.is_empty() && answer.body == previous {
                Err(answer.garbage("the same page came twice"))?;
            }
            let whole = answer.total();
            at += items.len() as u64;
            let last = items.is_empty() || (total == Total::OfTheList && whole.is_some_and(|whole| at >= whole));
            // Only after a full page is there another one at this position.
            at = at.next_multiple_of(size);
            previous = answer.body;
            for item in items {
                yield item;
            }
            if last {
                break;
            }
        }
    })
}
