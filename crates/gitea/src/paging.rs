//! Lists that come in pages, as streams.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::de::DeserializeOwned;

use super::error::ForgeError;
use super::transport::{Answer, Ask};

/// Items asked for on a page: the most that a forge gives by default. Where an
/// answer is larger than can be read, the next of these; each divides the one
/// before, so that a page begins where the last one ended.
const PAGE_SIZES: [u64; 4] = [50, 25, 5, 1];

/// Pages after which a list is taken for endless.
const PAGES_MAX: usize = 20_000;

/// Whether `X-Total-Count` can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// It counts the whole list: no further page is asked for once that many
    /// items came.
    OfTheList,
    /// It counts this page only (the timeline): the list ends at an empty page.
    OfThePage,
}

/// How a page is asked for: whatever sends, with moves and missing issues
/// handled by it.
pub(super) type Sender = Arc<dyn Fn(Ask) -> BoxFuture<'static, Result<Answer, ForgeError>> + Send + Sync>;

/// All items of a list, page by page, in the order of the forge. The stream
/// ends at the first error.
///
/// A list can shift between two pages: an item may come twice, and one may be
/// passed over when another is deleted meanwhile. Readers must bear both.
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
            // A server (or proxy) that does not know `page` would be read
            // for ever.
            if at > 0 && !items.is_empty() && answer.body == previous {
                Err(answer.garbage("the same page came twice"))?;
            }
            let whole = answer.total();
            at += items.len() as u64;
            let last = items.is_empty() || (total == Total::OfTheList && whole.is_some_and(|whole| at >= whole));
            // Only a full page is followed by another at this place.
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
