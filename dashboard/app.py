"""
The frame around the pages: name, icon, navigation. Streamlit runs this file for every visit and every interaction.

What is on a page stands in `screens/`; where data comes from, in `source.py`.
"""

import streamlit as st

from dashboard import look

ICON = str(look.STATIC / "icon.png")  # a file of ours: Streamlit fetches named icons for the tab from outside


def main() -> None:
    """Draw the frame and the page that was asked for."""
    st.set_page_config(page_title="Capstan", page_icon=ICON, layout="wide", initial_sidebar_state="auto")
    st.html(look.stylesheet())
    st.logo(ICON, size="large")
    page = st.navigation(
        [
            st.Page("screens/overview.py", title="Overview", icon=":material/dashboard:", default=True),
            st.Page("screens/sessions.py", title="Sessions", icon=":material/table_rows:", url_path="sessions"),
            st.Page("screens/programs.py", title="Programs", icon=":material/data_object:", url_path="programs"),
        ]
    )
    with look.explained():
        page.run()


main()
