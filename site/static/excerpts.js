// The search takes its excerpts from the article, not from the buttons and the contents beside it.
if (typeof Search !== "undefined") {
  const excerptOf = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const article = new DOMParser().parseFromString(html, "text/html").querySelector("article.bd-article");
    article?.setAttribute("role", "main");
    return excerptOf(article ? article.outerHTML : html, anchor);
  };
}
